"""Requests of every kind, each of which must end exactly once."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

ASK = [{"role": "user", "content": "Who are you?"}]
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
CHAT, COMPLETIONS, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
_ENDS = ("data: [DONE]", "event: message_stop", "event: response.completed", "event: response.incomplete")
_INVALID: tuple[tuple[str, Any], ...] = (
    (CHAT, {"messages": ASK, "temperature": -1}),
    (CHAT, {"messages": ASK, "model": "other"}),
    (CHAT, {"messages": [{"role": "user", "content": "word " * 6000}]}),
    (CHAT, {"messages": ASK, "guided_regex": "(["}),
    (COMPLETIONS, {"prompt": [[1], [10**7]]}),
    (MESSAGES, {"messages": ASK}),
    (RESPONSES, {"input": "x", "previous_response_id": "r"}),
    ("/v1/nothing", {}),
    (CHAT, b"{"),
    (CHAT, b'{"messages": "\xff"}'),
)


@dataclass
class Tally:
    """What came of them.

    Attributes:
        kinds: how many of each. ids: of those that certainly reached the server.
        problems: of those that did not end as they must.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Mix:
    """Makes requests by chance, and looks at how each ends.

    Args:
        client: of the server. seed: of the choices.
    """

    def __init__(self, client: httpx.AsyncClient, seed: int) -> None:
        self.tally = Tally()
        self._client = client
        self._random = random.Random(seed)

    async def run(self, num_requests: int, at_once: int) -> Tally:
        numbers = iter(range(num_requests))

        async def worker() -> None:
            for number in numbers:
                await self._one(f"mix-{number:05d}")

        await asyncio.gather(*(worker() for _ in range(at_once)))
        return self.tally

    async def _one(self, name: str) -> None:
        draw = self._random
        kind = draw.choices(["whole", "stream", "left", "left_whole", "invalid"], [30, 30, 15, 10, 15])[0]
        path, body = draw.choice(_INVALID) if kind == "invalid" else self._body(kind in ("stream", "left"))
        self.tally.kinds[kind] += 1
        if kind != "left_whole":
            self.tally.ids.append(name)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = self._client.build_request("POST", path, content=content, headers={"x-request-id": name})
        try:
            if kind == "left_whole":
                await self._left_whole(request)
            elif kind in ("stream", "left"):
                await self._streamed(request, name, draw.randrange(6) if kind == "left" else None)
            else:
                answer = await self._client.send(request)
                if answer.headers["x-request-id"] != name or not self._is_right(kind, answer):
                    self.tally.problems.append(f"{name} {path}: {answer.status_code} {answer.text[:300]}")
        except httpx.HTTPError as error:
            self.tally.problems.append(f"{name} {path}: {type(error).__name__} {error}")

    def _body(self, stream: bool) -> tuple[str, dict[str, Any]]:
        draw = self._random
        tokens = draw.randint(1, 24)
        common: dict[str, Any] = {"stream": stream, "temperature": draw.choice([0, 1.0]), "max_tokens": tokens}
        chat: tuple[str, dict[str, Any]] = (CHAT, {"messages": ASK, **common})
        return draw.choice(
            [
                chat,
                (CHAT, chat[1] | {"n": draw.randint(2, 4)}),
                (CHAT, chat[1] | {"guided_json": SCHEMA, "max_tokens": 40}),
                (CHAT, chat[1] | {"guided_regex": "[ab]{1,20}"}),
                (CHAT, chat[1] | {"stop": ["headrace", "model"], "logprobs": True, "top_logprobs": 2}),
                (COMPLETIONS, {"prompt": ["Mira was", [40, 41, 42]], "logprobs": 1, **common}),
                (COMPLETIONS, {"prompt": "Once " * draw.randint(1, 300), "echo": True, **common}),
                (MESSAGES, {"messages": ASK, **common}),
                (RESPONSES, {"input": "Who?", "stream": stream, "max_output_tokens": tokens}),
            ]
        )

    @staticmethod
    def _is_right(kind: str, answer: httpx.Response) -> bool:
        if kind == "invalid":
            return 400 <= answer.status_code < 500 and "error" in answer.json()
        return answer.status_code == 200 and "usage" in answer.json()

    async def _streamed(self, request: httpx.Request, name: str, num_lines: int | None) -> None:
        """Read a stream to its end, or leave after some lines (0: as soon as its head is there)."""
        answer = await self._client.send(request, stream=True)
        lines: list[str] = []
        try:
            if num_lines == 0:
                return
            async for line in answer.aiter_lines():
                lines.append(line)
                if len(lines) == num_lines:
                    return
        finally:
            await answer.aclose()
        ends = sum(line in _ENDS for line in lines)
        if answer.status_code != 200 or ends != 1 or any('"error":{' in line for line in lines):
            self.tally.problems.append(f"{name}: {answer.status_code}, {ends} ends in {lines[-3:]}")

    async def _left_whole(self, request: httpx.Request) -> None:
        """Ask, and leave after a moment, mostly before there is an answer."""
        asking = asyncio.create_task(self._client.send(request))
        await asyncio.wait([asking], timeout=self._random.random() * 0.05)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
