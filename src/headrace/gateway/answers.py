"""What is read of a replica's answer, beyond its framing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.errors import HeadraceError
from headrace.gateway.http.messages import lines_of
from headrace.protocol.error_body import error_body

RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of answers that may be others at another replica."""

_MOST_PAUSE_S = 60.0
_ELSEWHERE = frozenset({"engine_dead", "engine_stopped", "engine_unresponsive", "server_draining"})
"""Codes of errors in a stream that are the replica's trouble, not the request's."""


def pause_s(status: int, fields: Mapping[bytes, bytes]) -> float | None:
    """Seconds that a replica wants to be left alone, a minute at most; None when it does not say, or not so."""
    if status not in (429, 503):
        return None
    try:
        seconds = float(fields.get(b"retry-after", b""))
    except ValueError:
        return None
    return min(seconds, _MOST_PAUSE_S) if 0 <= seconds < math.inf else None


def refusal(error: HeadraceError, request_id: str | None = None) -> tuple[int, bytes, bytes]:
    """Status, header lines and body of the gateway's own answer to what it does not pass on."""
    answer = error_body(error, request_id=request_id)
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    return answer.status, lines_of([*headers, (b"content-type", b"application/json")]), msgspec.json.encode(answer.body)


class _Identity(msgspec.Struct):
    id: str = ""
    created: int | None = None
    created_at: int | None = None


class _FirstEvent(_Identity):
    message: _Identity | None = None
    response: _Identity | None = None


def identity(events: bytes) -> dict[str, Any]:
    """Id and time of an answer, which have to be the same in what follows from another replica."""
    for line in events.split(b"\n"):
        if line.startswith(b"data: {"):
            try:
                found = msgspec.json.decode(line[6:], type=_FirstEvent)
            except msgspec.DecodeError:
                continue
            answer = found.message or found.response or found
            return {"id": answer.id, "created": answer.created_at if answer.created is None else answer.created}
    return {}


class _ErrorDetail(msgspec.Struct):
    code: str | int | None = None


class _ErrorEvent(msgspec.Struct):
    error: _ErrorDetail | None = None


def error_event(error: HeadraceError) -> bytes:
    """The end of a stream that nobody can go on with."""
    return b"data: " + msgspec.json.encode(error_body(error).body) + b"\n\n"


def is_replicas_trouble(event: bytes) -> bool:
    """Whether an error event of a stream is no fault of the request."""
    start = event.find(b"{")
    line = event[start:].partition(b"\n")[0] if start >= 0 else b""
    try:
        found = msgspec.json.decode(line, type=_ErrorEvent)
    except msgspec.DecodeError:
        return False
    return found.error is not None and found.error.code in _ELSEWHERE
