"""Reads server-sent events back, and plays an answer to a writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.protocol import (
    GenerationCall,
    Part,
    PromptInfo,
    TokenLogprob,
    Usage,
    Writer,
    make_writer,
    new_response_id,
)

PROMPT = PromptInfo(11, 4, (1, 2, 3), "Once", TokenLogprob(1, "On", b"On", 0.0))
USAGE = Usage(11, 7, 4, 2)


class Event(NamedTuple):
    """One frame. Attributes: name: of it, or None. data: decoded, or the text [DONE]."""

    name: str | None
    data: Any


def events(stream: bytes) -> list[Event]:
    """The frames of a stream; each must be whole and of one data line."""
    assert stream.endswith(b"\n\n")
    found = []
    for block in stream.removesuffix(b"\n\n").split(b"\n\n"):
        lines = block.split(b"\n")
        name = lines.pop(0).removeprefix(b"event: ").decode() if lines[0].startswith(b"event: ") else None
        (line,) = lines
        data = line.removeprefix(b"data: ")
        assert data != line
        found.append(Event(name, "[DONE]" if data == b"[DONE]" else msgspec.json.decode(data)))
    return found


def token(text: str, logprob: float = -0.5, token_id: int = 7) -> TokenLogprob:
    """A token with one alternative."""
    other = TokenLogprob(9, "other", b"other", -2.0)
    return TokenLogprob(
        token_id, text, text.encode(), logprob, 1, (TokenLogprob(token_id, text, text.encode(), logprob), other)
    )


def writer_of(call: GenerationCall) -> Writer:
    """A writer with fixed names."""
    return make_writer(call, new_response_id(call.endpoint, "abc"), 1700000000, 'a "model"')


def play(
    call: GenerationCall,
    parts: Sequence[Part],
    finish_reason: Any = "stop",
    stop_reason: int | str | None = None,
    **finish: Any,
) -> bytes:
    """The whole way of an answer in which every part is one token, the same for all choices."""
    writer = writer_of(call)
    written = writer.start([PROMPT] * len(call.prompts))
    for index in range(call.num_choices):
        for part in parts:
            logprobs = [token("x")] if call.num_top_logprobs is not None else []
            written += writer.parts(index, [part], (7,), logprobs)
        written += writer.finish_choice(index, finish_reason, stop_reason, **finish)
    return written + writer.end(USAGE) if call.stream else writer.body(USAGE)
