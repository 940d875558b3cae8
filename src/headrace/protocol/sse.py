"""Server-sent events: frames of one data line each."""

from __future__ import annotations

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
"""Ends a stream of OpenAI's chat and completions."""

COMMENT = b": waiting\n\n"
"""Says that the connection is alive; every client skips it."""

encode = msgspec.json.Encoder().encode


def frame(payload: Any) -> bytes:
    """A frame without a name, around JSON."""
    return b"data: " + encode(payload) + b"\n\n"


def named_frame(name: str, payload: Any) -> bytes:
    """A frame with a name, around JSON."""
    return b"event: " + name.encode() + b"\ndata: " + encode(payload) + b"\n\n"
