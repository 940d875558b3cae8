"""What changes in a request and in an answer on their way through."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.gateway.events import ChoiceSoFar
from headrace.gateway.http.messages import HOP_BY_HOP, Headers, Request, end_to_end
from headrace.gateway.replica import ReportedLoad

ROUTE = b"x-headrace-route"
TOKEN_IDS = b"x-headrace-token-ids"
SEED = b"x-headrace-seed"
LOAD = b"x-headrace-load"
REQUEST_ID = b"x-request-id"

_REQUEST_ID_FORM = re.compile(rb"[\x21-\x7e]{1,200}")
_LOAD_FORM = re.compile(rb"running=(\d+),waiting=(\d+),tokens=(\d+),kv=([\d.]+)")
_NOT_SENT = HOP_BY_HOP | {
    b"host", b"x-forwarded-for", b"x-forwarded-proto", REQUEST_ID, ROUTE, TOKEN_IDS, SEED
}  # fmt: skip
_NOT_GIVEN = HOP_BY_HOP | {TOKEN_IDS, SEED, REQUEST_ID, ROUTE}
_REQUEST = (
    b"%b %b HTTP/1.1\r\n%bhost: %b\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-request-id: %b\r\n"
    b"content-length: %d\r\n\r\n"
)


def request_id(given: bytes) -> str | None:
    """The client's id of a request; None when it is not fit for a header and a log line."""
    return None if _REQUEST_ID_FORM.fullmatch(given) is None else given.decode()


def outgoing(request: Request, num_bytes: int, authority: bytes, request_id: bytes, wants_token_ids: bool) -> bytes:
    """The head of the request as the replica gets it, for a body of so many bytes."""
    client, fields = request.client.encode(), request.fields
    if b"x-forwarded-for" in fields:
        client = b"%b, %b" % (fields[b"x-forwarded-for"], client)
    lines = end_to_end(request.headers, fields, _NOT_SENT)
    if wants_token_ids:
        lines += TOKEN_IDS + b": 1\r\n"
    return _REQUEST % (
        request.method, request.target, lines, authority, client, b"https" if request.is_tls else b"http", request_id,
        num_bytes,
    )  # fmt: skip


def incoming(headers: Headers, fields: Mapping[bytes, bytes], request_id: bytes, route: bytes) -> bytes:
    """The headers of an answer as the client gets them, in lines."""
    return b"%bx-request-id: %b\r\nx-headrace-route: %b\r\n" % (
        end_to_end(headers, fields, _NOT_GIVEN), request_id, route,
    )  # fmt: skip


def continuation(body: bytes, seed: bytes, first_event: Mapping[str, Any], choices: Mapping[int, ChoiceSoFar]) -> bytes:
    """The body of a request that goes on where another replica stopped.

    Args:
        body: as the client sent it, a JSON object. seed: that the first replica drew with. first_event: `id` and
            `created` of the answer. choices: what was given out of each.
    """
    count = max(choices, default=-1) + 1
    member = {
        **first_event,
        "seed": int(seed) if seed else None,
        "choices": [
            {"token_ids": so_far.token_ids, "finish_reason": so_far.finish_reason}
            for so_far in (choices.get(index, ChoiceSoFar()) for index in range(count))
        ],
    }
    opening = body.index(b"{") + 1
    rest = body[opening:]
    comma = b"" if rest.lstrip().startswith(b"}") else b","
    return b'{"headrace_continue":' + msgspec.json.encode(member) + comma + rest


def reported_load(headers: Headers) -> ReportedLoad | None:
    """What a replica says of its load; None when it says nothing."""
    return next((load(value) for name, value in headers if name == LOAD), None)


def load(value: bytes) -> ReportedLoad | None:
    """A header's value; None when it cannot be read."""
    match = _LOAD_FORM.match(value)
    if match is None:
        return None
    running, waiting, tokens, kv = match.groups()
    return ReportedLoad(int(running), int(waiting), int(tokens), float(kv))


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None


class _Inner(msgspec.Struct):
    usage: _Usage | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None
    response: _Inner | None = None
    message: _Inner | None = None


_NO_USAGE = (0, 0, 0)
_decode = msgspec.json.Decoder(_Answer).decode


def usage(answer: bytes) -> tuple[int, int, int]:
    """Prompt, cached and output tokens by an answer's own word, whichever API it is of; zeros when it says nothing.

    Args:
        answer: a JSON object, or events of a stream of which the last with usage counts.
    """
    if answer.rfind(b'"usage"') < 0:  # it is near the end, and so it is found sooner
        return _NO_USAGE
    if answer[:1] == b"{":
        return _usage_of(answer) or _NO_USAGE
    return next(filter(None, map(_usage_of, _events_with_usage(answer))), _NO_USAGE)


def _usage_of(text: bytes) -> tuple[int, int, int] | None:
    try:
        found = _decode(text)
    except msgspec.DecodeError:
        return None
    holder = found if found.usage is not None else found.response or found.message
    return _counts(holder.usage) if holder is not None and holder.usage is not None else None


def _events_with_usage(events: bytes) -> list[bytes]:
    """The last one first."""
    return [line[5:] for line in events.split(b"\n") if line.startswith(b"data:") and b'"usage"' in line][::-1]


def _counts(usage: _Usage) -> tuple[int, int, int]:
    details = usage.prompt_tokens_details or usage.input_tokens_details
    output = usage.completion_tokens or usage.output_tokens or 0
    if details is not None or usage.cache_read_input_tokens is None:
        return usage.prompt_tokens or usage.input_tokens or 0, (details and details.cached_tokens) or 0, output
    # In Anthropic's words the input is what was neither read from the cache nor written to it.
    cached = usage.cache_read_input_tokens
    return (usage.input_tokens or 0) + cached + (usage.cache_creation_input_tokens or 0), cached, output
