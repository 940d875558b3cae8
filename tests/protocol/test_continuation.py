"""What a gateway is told of a stream, and how it asks another replica to go on with it."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidField
from headrace.gateway.events import EventStream
from headrace.protocol.call import BegunChoice
from headrace.protocol.progress import Progress
from tests.protocol.bodies import CASES, GENERATING

BEGUN = {"id": "x-1", "created": 7, "seed": 2**64 - 1, "choices": [{"token_ids": [3, 4], "finish_reason": None}]}


@pytest.mark.parametrize("name", GENERATING)
def test_every_endpoint_that_generates_takes_it(name: str) -> None:
    parse, body = CASES[name]
    body = {**body, "echo": False} if name == "completions" else body
    call = parse({**body, "stream": True, "headrace_continue": BEGUN}, strict=True)
    begun = call.continuation
    assert (begun.response_id, begun.created, begun.seed) == ("x-1", 7, 2**64 - 1)
    assert (begun.choice(0), begun.choice(1)) == (BegunChoice((3, 4)), BegunChoice())
    assert parse({**body, "stream": True}).continuation is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"headrace_continue": [1]}, r"headrace_continue=\[1\] is not allowed: an object with id"),
        ({"id": None}, "headrace_continue.id is missing|headrace_continue.id=null"),
        ({"created": -1}, "headrace_continue.created=-1"),
        ({"seed": 2**64}, "headrace_continue.seed="),
        ({"choices": [{}]}, r"headrace_continue.choices\[0\].token_ids is missing"),
        ({"choices": [{"token_ids": [-1]}]}, r"headrace_continue.choices\[0\].token_ids\[0\]=-1"),
        ({"choices": [{"token_ids": [], "finish_reason": "x"}]}, r"choices\[0\].finish_reason=\"x\""),
        ({"choices": [{"token_ids": []}] * 2}, "headrace_continue.choices=2 of them is not allowed: at most 1"),
        ({"stream": False}, "headrace_continue=an object is not allowed: a request with stream: true"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    parse, body = CASES["chat"]
    outer = {name: value for name, value in change.items() if name in ("headrace_continue", "stream")}
    inner = {name: value for name, value in change.items() if name not in outer}
    with pytest.raises(InvalidField, match=message):
        parse({**body, "n": 1, "stream": True, "headrace_continue": {**BEGUN, **inner}, **outer})


def test_tokens_without_an_event_are_told_of_with_the_next_one() -> None:
    progress = Progress(2)
    progress.open(b"data: begin\n\n")
    progress.took(0, [1])
    assert progress.marked(0, b"") == b""
    progress.took(1, [9])
    assert progress.opened() == b": headrace 0:1 1:9\ndata: begin\n\n"
    assert progress.opened() == b""
    progress.took(0, [2, 3])
    progress.took(1, [8])
    assert progress.marked(0, b"data: a\n\n") == b": headrace 0:2,3\ndata: a\n\n"
    assert progress.marked(0, b"data: b\n\n") == b"data: b\n\n"
    progress.ended(0, "stop")
    assert progress.marked(0, b"data: c\n\ndata: d\n\n") == b": headrace 0=stop *2\ndata: c\n\ndata: d\n\n"
    assert progress.closed(b"data: e\n\n", has_usage=True) == b": headrace 1:8 usage\ndata: e\n\n"


def test_a_gateway_passes_a_group_on_as_a_whole() -> None:
    progress = Progress(1)
    progress.open(b"data: 0\n\n")
    sent = b""
    for token in range(5):
        progress.took(0, [token])
        sent += progress.marked(0, b"data: a * b\n\n" * (token % 3))
    sent += progress.closed(b"data: [DONE]\n\n", has_usage=False)
    whole = EventStream(False)
    given = whole.push(sent)
    assert given.count(b"data: a") == 4
    for size in (1, 7, 20):
        stream, pieces, told = EventStream(False), [], []
        for start in range(0, len(sent), size):
            pieces.append(stream.push(sent[start : start + size]))
            told.append(stream.choices[0].token_ids[-1] if stream.choices else None)
        assert b"".join(pieces) == given
        assert stream.choices == whole.choices
        assert all(piece.count(b"a * b") % 2 == 0 for piece, token in zip(pieces, told, strict=True) if token == 2)
