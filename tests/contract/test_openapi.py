"""schemathesis over /openapi.json: whatever is sent, the answer is one that the document has, and never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace.errors import HeadraceError
from headrace.protocol.openapi import document
from headrace.protocol.parse import parse_drain, parse_profile
from headrace.protocol.table import ENDPOINTS
from tests.contract.process import Server, is_idle, seconds_until, serving, simulated

NAMES = [endpoint.name for endpoint in ENDPOINTS]
_LARGE = ("chat", "messages", "responses", "count_tokens")
"""Documents that take seconds to make examples of."""

WITH_BODY = [endpoint.name for endpoint in ENDPOINTS if endpoint.body]
_ADMINISTRATION = {"admin_drain": parse_drain, "admin_profile": parse_profile}


@pytest.fixture(scope="module")
def simulation() -> Iterator[Server]:
    """Without compute: what is tried here is the server."""
    with serving("builtin", *simulated(max_model_len=256)) as server:
        yield server


@pytest.fixture(scope="module")
def operations() -> dict[str, Any]:
    import schemathesis  # a second, which other tests need not pay for

    schema = schemathesis.openapi.from_dict(document())
    found = [result.ok() for result in schema.get_all_operations()]
    return {operation.definition.raw["operationId"]: operation for operation in found}


def try_out(server: Server, operation: Any, name: str, num_examples: int, *, valid: bool) -> None:
    """Send examples that fit the document, or that do not."""
    import requests
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi import checks

    mode = GenerationMode.POSITIVE if valid else GenerationMode.NEGATIVE
    body = operation.definition.raw.get("requestBody")
    session = requests.Session()
    held = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]

    @given(data=st.data())
    @settings(
        max_examples=num_examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(data: Any) -> None:
        case = data.draw(operation.as_strategy(mode))
        _bound(case, name)
        answer = case.call(base_url=server.url, session=session, timeout=30)
        assert answer.status_code < 500, (case.body, answer.text)
        if case.method == operation.method.upper():
            case.validate_response(answer, checks=held)

    with session:
        if body is not None or valid:
            check()


def _bound(case: Any, name: str) -> None:
    """Take what would only take long, or end the server, out of an example."""
    if name in _ADMINISTRATION:
        try:
            _ADMINISTRATION[name](b"" if not isinstance(case.body, dict) else _encoded(case.body))
        except HeadraceError:
            return
        case.body = {"deadline_s": "soon", "duration_s": "long"}
    elif isinstance(case.body, dict):
        for field in ("n", "best_of"):
            if isinstance(case.body.get(field), int):
                case.body[field] = min(case.body[field], 3)


def _encoded(body: Any) -> bytes:
    import json

    return json.dumps(body).encode()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in _LARGE else ()) for name in NAMES]
)
def test_what_fits_the_document(simulation: Server, operations: dict[str, Any], name: str) -> None:
    try_out(simulation, operations[name], name, 4, valid=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_BODY)
def test_what_does_not_fit(simulation: Server, operations: dict[str, Any], name: str) -> None:
    try_out(simulation, operations[name], name, 10, valid=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_BODY)
@pytest.mark.parametrize("valid", [True, False])
def test_much_more(simulation: Server, operations: dict[str, Any], name: str, valid: bool) -> None:
    try_out(simulation, operations[name], name, 25, valid=valid)
    assert simulation.get("/health/ready").status_code == 200
    seconds_until(lambda: is_idle(simulation.state()))


def test_the_document_that_is_served_is_the_one_that_is_tried(simulation: Server) -> None:
    assert simulation.get("/openapi.json").json() == document()
