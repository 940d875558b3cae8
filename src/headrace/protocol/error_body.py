"""Errors as the clients of each interface expect them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from headrace.errors import HeadraceError, InvalidParameter
from headrace.protocol.table.endpoints import Style

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    499: "request_cancelled",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ErrorAnswer(NamedTuple):
    """Attributes: status: of HTTP. headers: besides the content type. body: to be encoded as JSON."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


def error_body(error: BaseException, style: Style = "openai", request_id: str | None = None) -> ErrorAnswer:
    """The answer to a request that failed.

    An error from outside of headrace's tree is a fault of the server: its text is for the log, not for the client.

    Args:
        error: what happened; `retry_after_s`, `hint` and `name` are read where it has them.
        style: of the interface. request_id: by which the log tells more.
    """
    status = error.http_status if isinstance(error, HeadraceError) else 500
    headers = {} if request_id is None else {"x-request-id": request_id}
    if status == 401:
        headers["www-authenticate"] = "Bearer"  # RFC 9110 wants every 401 to say what is asked for
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    if style == "anthropic":
        body = {"type": "error", "error": anthropic_error(error, status), "request_id": request_id}
    else:
        body = {"error": openai_error(error, request_id)}
    return ErrorAnswer(status, headers, body)


def openai_error(error: BaseException, request_id: str | None = None) -> dict[str, Any]:
    """The object that OpenAI's clients read, with a hint and the request's id."""
    known = error if isinstance(error, HeadraceError) else HeadraceError()
    status = known.http_status
    return {
        "message": message_of(error),
        "type": _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
        "param": param_of(error),
        "code": known.code,
        "hint": _hint(error),
        "request_id": request_id,
    }


def anthropic_error(error: BaseException, status: int) -> dict[str, Any]:
    """The object that Anthropic's clients read, with headrace's code, the field and a hint."""
    name = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    details = openai_error(error)
    return {"type": name, **{key: details[key] for key in ("message", "code", "param", "hint")}}


def message_of(error: BaseException) -> str:
    """What the client is told."""
    if isinstance(error, HeadraceError):
        return str(error) or error.code.replace("_", " ")
    return "an internal error; the server's log has the details under this request's id"


def param_of(error: BaseException) -> str | None:
    """The path of the field that is wrong."""
    name = getattr(error, "name", None)
    return name if isinstance(error, HeadraceError) and isinstance(name, str) else None


def _hint(error: BaseException) -> str | None:
    hint, retry_after_s = getattr(error, "hint", None), getattr(error, "retry_after_s", None)
    if hint is None and isinstance(error, InvalidParameter):
        hint = getattr(error, "allowed", None)
    if hint is None and retry_after_s is not None:
        hint = f"try again in {max(1, math.ceil(retry_after_s))} s"
    return hint if isinstance(error, HeadraceError) and isinstance(hint, str) else None
