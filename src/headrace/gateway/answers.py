"""What is read of a replica's answer, beyond its framing."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from headrace.errors import HeadraceError
from headrace.gateway.http.messages import lines_of
from headrace.protocol.error_body import error_body


def retry_after(value: bytes | None) -> float | None:
    """Seconds that a replica wants to be left alone; None when it does not say, or not so."""
    try:
        seconds = float(value or b"")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


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


def error_code(event: bytes) -> str:
    """What an error event of a stream calls it; "" when it does not."""
    start = event.find(b"{")
    line = event[start:].partition(b"\n")[0] if start >= 0 else b""
    try:
        found = msgspec.json.decode(line, type=_ErrorEvent)
    except msgspec.DecodeError:
        return ""
    return str(found.error.code) if found.error is not None else ""
