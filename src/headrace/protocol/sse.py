"""Server-sent events: frames of one data line each."""

from __future__ import annotations

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
"""Ends a stream of OpenAI's chat and completions."""

COMMENT = b": waiting\n\n"
"""Says that the connection is alive; every client skips it."""

_encode = msgspec.json.Encoder().encode
_LINE_ENDS = tuple((end.encode(), b"\\u%04x" % ord(end)) for end in "\x85\u2028\u2029")
"""They end no line of a stream, but clients that split decoded text by Python's `splitlines` (httpx's `iter_lines`) cut
a frame there; inside JSON they may as well be written as escapes."""


def encode(payload: Any) -> bytes:
    """JSON without anything that a client could take for the end of a line."""
    data = _encode(payload)
    if not data.isascii():
        for end, escape in _LINE_ENDS:
            data = data.replace(end, escape)
    return data


def frame(payload: Any) -> bytes:
    """A frame without a name, around JSON."""
    return b"data: " + encode(payload) + b"\n\n"


def named_frame(name: str, payload: Any) -> bytes:
    """A frame with a name, around JSON."""
    return b"event: " + name.encode() + b"\ndata: " + encode(payload) + b"\n\n"
