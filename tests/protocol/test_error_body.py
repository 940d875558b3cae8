"""Errors in each interface's form."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import (
    EngineDead,
    HeadraceError,
    InvalidField,
    InvalidParameter,
    ModelNotFound,
    PromptTooLong,
    QueueFull,
    RequestFailed,
    Unauthorized,
)
from headrace.protocol import error_body


def _tree(root: type[HeadraceError]) -> list[type[HeadraceError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


@pytest.mark.parametrize("kind", _tree(HeadraceError))
def test_every_error_has_both_forms(kind: type[HeadraceError]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "what happened")
    for style in ("openai", "anthropic"):
        answer = error_body(error, style, "r")  # type: ignore[arg-type]
        assert answer.status == kind.http_status
        assert answer.body["error"]["code"] == kind.code
        assert answer.body["error"]["message"]
        assert answer.headers["x-request-id"] == "r"


@pytest.mark.parametrize(
    ("error", "status", "openai_type", "anthropic_type"),
    [
        (InvalidField("a", "1", "2"), 400, "invalid_request_error", "invalid_request_error"),
        (PromptTooLong("x"), 400, "invalid_request_error", "invalid_request_error"),
        (Unauthorized("x"), 401, "authentication_error", "authentication_error"),
        (ModelNotFound("x"), 404, "not_found_error", "not_found_error"),
        (QueueFull("x"), 429, "rate_limit_error", "rate_limit_error"),
        (RequestFailed("x"), 500, "server_error", "api_error"),
        (EngineDead("x"), 503, "server_error", "overloaded_error"),
        (KeyError("x"), 500, "server_error", "api_error"),
    ],
)
def test_types(error: Exception, status: int, openai_type: str, anthropic_type: str) -> None:
    assert error_body(error).body["error"]["type"] == openai_type
    answer = error_body(error, "anthropic")
    assert (answer.status, answer.body["error"]["type"]) == (status, anthropic_type)


def test_the_field_and_a_hint() -> None:
    for error in (InvalidField("top_k", "-5", "0 or more"), InvalidParameter("top_k", -5, "0 or more")):
        details = error_body(error).body["error"]
        assert (details["param"], details["hint"], details["code"]) == ("top_k", "0 or more", "invalid_parameter")


def test_when_to_try_again() -> None:
    error: Any = QueueFull("full")
    error.retry_after_s = 0.2
    answer = error_body(error)
    assert answer.headers["retry-after"] == "1"
    assert answer.body["error"]["hint"] == "try again in 1 s"


def test_errors_from_outside_tell_clients_nothing() -> None:
    assert "secret" not in str(error_body(ValueError("secret"), request_id="r"))
