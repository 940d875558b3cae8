"""Whatever is sent: a call, or an error that a client can act on. Never anything else."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.sampling_params import SamplingParams
from headrace.errors import InvalidField, InvalidRequest, UnsupportedField
from headrace.protocol import ContentPart, GenerationCall, ToolCallPart, error_body
from tests.protocol.bodies import CASES, GENERATING
from tests.protocol.events import play

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "user", "assistant", "tool", "text", "function", "json_schema", "auto", "required", "none"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "role", "content", "text", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Places in a body."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inner for path in paths(item, (*at, key)))]


def with_value(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The body with another value, or without one, at a place."""
    if not path:
        return value
    body = copy.deepcopy(body)
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return body


def check(name: str, body: Any, *, strict: bool = False) -> None:
    """Parse, and take what comes of it as far as this package goes."""
    parse, _ = CASES[name]
    try:
        call = parse(msgspec.json.encode(body), strict=strict)
    except InvalidRequest as error:
        answer = error_body(error, request_id="r")
        assert answer.status == 400
        assert len(answer.body["error"]["message"]) < 4000
        msgspec.json.encode(answer.body)
        if isinstance(error, InvalidField | UnsupportedField):
            assert answer.body["error"]["param"]
            assert answer.body["error"]["hint"]
        return
    if isinstance(call, GenerationCall):
        SamplingParams(**call.sampling)
        if call.num_choices <= 8:
            play(call, [ContentPart("a"), ToolCallPart(0, "c", "f", "{}")])


@pytest.mark.parametrize("name", CASES)
@given(body=JSON)
@settings(max_examples=60, deadline=None)
def test_any_json(name: str, body: Any) -> None:
    check(name, body)


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_valid_body_with_one_place_changed(name: str, data: st.DataObject) -> None:
    _, body = CASES[name]
    path = data.draw(st.sampled_from(paths(body)))
    value = data.draw(st.just(...) | JSON) if path else data.draw(JSON)
    check(name, with_value(body, path, value), strict=data.draw(st.booleans()))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_valid_body_with_any_known_field(name: str, data: st.DataObject) -> None:
    from headrace.protocol.table import ENDPOINTS

    (endpoint,) = (item for item in ENDPOINTS if item.name == name)
    assert endpoint.body is not None
    field = data.draw(st.sampled_from([item.name for item in endpoint.body]))
    check(name, {**CASES[name][1], field: data.draw(JSON)})


@given(body=st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_bytes(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        CASES["chat"][0](body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[1]", "JSON array"),
        (b"null", "JSON null"),
        (b'{"messages": "\xff"}', "UTF-8"),
        (b'{"seed": NaN}', "not JSON"),
        (b'{"seed": 1e999}', "JSON|not allowed"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "JSON|not allowed"),
        (b'{"a": "\\ud800"}', "JSON"),
        (b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_bytes_that_are_no_object(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        CASES["chat"][0](body)


def test_the_bodies_here_are_valid() -> None:
    for name in CASES:
        parse, body = CASES[name]
        assert parse(body, strict=True).ignored_fields == ()


def test_a_million_token_ids_are_read_at_once() -> None:
    ids = list(range(1_000_000))
    assert CASES["completions"][0]({"prompt": ids}).prompts == (tuple(ids),)
    with pytest.raises(InvalidRequest, match=r"prompt\[999999\]=-1 is not allowed"):
        CASES["completions"][0]({"prompt": [*ids[:-1], -1]})


def test_long_values_are_shown_short() -> None:
    for name in GENERATING:
        with pytest.raises(InvalidRequest) as caught:
            CASES[name][0](CASES[name][1] | {"temperature": {"x" * 9999: ["y" * 9999] * 999}})
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("depth", [101, 300, 900])
def test_deep_objects_are_refused_by_name(depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    with pytest.raises(InvalidField, match=r"metadata=.* of at most 100 levels"):
        CASES["responses"][0](b'{"input": "x", "metadata": ' + deep + b"}")


def test_objects_of_a_hundred_levels_are_written_back() -> None:
    deep = b'{"a":' * 100 + b"1" + b"}" * 100
    call = CASES["responses"][0](b'{"input": "x", "metadata": ' + deep + b"}")
    assert deep in play(call, [ContentPart("a")])
