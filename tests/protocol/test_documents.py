"""docs/api.md and /openapi.json say what the table says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from tools.api_docs.__main__ import PAGE

from headrace.protocol.api_page import page
from headrace.protocol.error_body import error_body
from headrace.protocol.openapi import document
from headrace.protocol.table import ENDPOINTS
from tests.protocol.bodies import CASES, GENERATING
from tests.protocol.events import play


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.api_docs"


def test_the_document_is_valid() -> None:
    validate(document())


def test_every_endpoint_is_in_both() -> None:
    paths = document()["paths"]
    for endpoint in ENDPOINTS:
        assert endpoint.method.lower() in paths[endpoint.path]
        assert f"`{endpoint.method} {endpoint.path}`" in page()


def test_every_field_is_in_both() -> None:
    schemas = document()["components"]["schemas"]
    for endpoint in ENDPOINTS:
        for field in endpoint.body or ():
            assert field.name in schemas[f"{endpoint.name}_request"]["properties"]
            assert f"`{field.name}`" in page()


def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({**document(), "$ref": f"#/components/schemas/{name}"})


@pytest.mark.parametrize("name", CASES)
def test_valid_bodies_are_valid_by_the_document(name: str) -> None:
    _validator(f"{name}_request").validate(CASES[name][1])


@pytest.mark.parametrize(
    "change", [{"temperature": -1}, {"temperature": "hot"}, {"seed": 1.5}, {"top_k": -2}, {"truncate_prompt_tokens": 5}]
)
@pytest.mark.parametrize("name", GENERATING)
def test_what_is_refused_is_invalid_by_the_document(name: str, change: dict[str, Any]) -> None:
    assert not _validator(f"{name}_request").is_valid({**CASES[name][1], **change})


@pytest.mark.parametrize("name", GENERATING)
def test_answers_are_what_the_document_says(name: str) -> None:
    call = CASES[name][0]({**CASES[name][1], "stream": False})
    _validator(f"{name}_answer").validate(msgspec.json.decode(play(call, [])))


def test_errors_are_what_the_document_says() -> None:
    for style in ("openai", "anthropic"):
        _validator(f"{style}_error").validate(error_body(ValueError("x"), style, "r").body)  # type: ignore[arg-type]
