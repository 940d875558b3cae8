"""A service without a network or a model: reads requests and writes a scripted answer, in this package's ways alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anthropic
import httpx
import httpx2
import msgspec
import openai

from headrace.errors import HeadraceError
from headrace.protocol import GenerationCall, Part, error_body
from headrace.protocol.table import ENDPOINTS
from tests.protocol.bodies import CASES
from tests.protocol.events import play

Answerer = Callable[[GenerationCall], bytes]
_BY_PATH = {endpoint.path: endpoint for endpoint in ENDPOINTS}


def answer_with(parts: Sequence[Part], **how: Any) -> Answerer:
    """Answers every call with these parts."""
    return lambda call: play(call, parts, **how)


def respond(path: str, body: bytes, answer: Answerer) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content."""
    endpoint = _BY_PATH[path]
    try:
        call = CASES[endpoint.name][0](body, strict=False)
        if not isinstance(call, GenerationCall):
            return 200, {"content-type": "application/json"}, b'{"input_tokens": 5}'
        media = "text/event-stream" if call.stream else "application/json"
        return 200, {"content-type": media}, answer(call)
    except HeadraceError as error:
        failed = error_body(error, endpoint.style, "req-1")
        return failed.status, failed.headers, msgspec.json.encode(failed.body)


def openai_client(answer: Answerer) -> openai.OpenAI:
    """OpenAI's client of the service."""

    def handle(request: httpx.Request) -> httpx.Response:
        status, headers, content = respond(request.url.path, request.content, answer)
        return httpx.Response(status, headers=headers, content=content)

    client = httpx.Client(transport=httpx.MockTransport(handle))
    return openai.OpenAI(api_key="k", base_url="http://test/v1", http_client=client, max_retries=0)


def anthropic_client(answer: Answerer) -> anthropic.Anthropic:
    """Anthropic's client of the service."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        status, headers, content = respond(request.url.path, request.content, answer)
        return httpx2.Response(status, headers=headers, content=content)

    client = httpx2.Client(transport=httpx2.MockTransport(handle))
    return anthropic.Anthropic(api_key="k", base_url="http://test", http_client=client, max_retries=0)
