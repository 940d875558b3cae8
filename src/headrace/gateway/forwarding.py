"""What changes in a request and in an answer on their way through."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headrace.gateway.events import ChoiceSoFar
from headrace.gateway.http.messages import HOP_BY_HOP, Headers, Request, end_to_end, request_head
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


def request_id(request: Request, new: Callable[[], str]) -> str:
    """The client's id of a request where it is fit for a header and a log line, else a new one."""
    given = request.header(REQUEST_ID)
    return given.decode() if given and _REQUEST_ID_FORM.fullmatch(given) else new()


def outgoing(request: Request, body: bytes, authority: bytes, request_id: str, wants_token_ids: bool) -> bytes:
    """The request as the replica gets it."""
    headers = end_to_end(request.headers, _NOT_SENT)
    forwarded = request.header(b"x-forwarded-for")
    client = request.client.encode()
    headers += (
        (b"host", authority),
        (b"x-forwarded-for", forwarded + b", " + client if forwarded else client),
        (b"x-forwarded-proto", b"https" if request.is_tls else b"http"),
        (REQUEST_ID, request_id.encode()),
    )
    if wants_token_ids:
        headers.append((TOKEN_IDS, b"1"))
    return request_head(request.method, request.target, headers, len(body)) + body


def incoming(headers: Headers, request_id: str, route: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer as the client gets them."""
    kept = end_to_end(headers, _NOT_GIVEN)
    kept += ((REQUEST_ID, request_id.encode()), (ROUTE, route))
    return kept


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


_decode = msgspec.json.Decoder(_Answer).decode


def usage(answer: bytes) -> tuple[int, int, int]:
    """Prompt, cached and output tokens by an answer's own word, whichever API it is of; zeros when it says nothing.

    Args:
        answer: a JSON object, or events of a stream of which the last with usage counts.
    """
    if b'"usage"' not in answer:
        return 0, 0, 0
    texts = (
        (answer,)
        if answer.startswith(b"{")
        else [line[5:] for line in answer.split(b"\n") if line.startswith(b"data:") and b'"usage"' in line][::-1]
    )
    for text in texts:
        try:
            found = _decode(text)
        except msgspec.DecodeError:
            continue
        for holder in (found, found.response, found.message):
            if holder is not None and holder.usage is not None:
                return _counts(holder.usage)
    return 0, 0, 0


def _counts(usage: _Usage) -> tuple[int, int, int]:
    details = usage.prompt_tokens_details or usage.input_tokens_details
    output = usage.completion_tokens or usage.output_tokens or 0
    if details is not None or usage.cache_read_input_tokens is None:
        cached = details.cached_tokens if details is not None else 0
        return usage.prompt_tokens or usage.input_tokens or 0, cached or 0, output
    # In Anthropic's words the input is what was neither read from the cache nor written to it.
    cached = usage.cache_read_input_tokens
    return (usage.input_tokens or 0) + cached + (usage.cache_creation_input_tokens or 0), cached, output
