"""Streams cut at any place, as a gateway would see them, and continued."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from headrace.gateway import forwarding
from headrace.gateway.answers import identity
from headrace.gateway.events import EventStream
from tests.server.service import Service

TOLD = {"x-headrace-token-ids": "1"}


@dataclass
class Undisturbed:
    """A stream that came to its end.

    Attributes:
        body: of the request. raw: bytes as the replica sent them. given: as a client of a gateway gets them.
        choices: token ids and finish reason of each.
    """

    path: str
    body: dict[str, Any]
    raw: bytes
    given: bytes
    seed: bytes
    choices: dict[int, tuple[list[int], str | None]]

    def places(self) -> Iterator[int]:
        """Where to cut: after each event, and within each."""
        ends = [match.end() for match in re.finditer(rb"\n\n", self.raw)]
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            yield (begin + end) // 2
            yield end


async def undisturbed(service: Service, path: str, body: dict[str, Any]) -> Undisturbed:
    body = {**body, "stream": True}
    answer = await service.client.post(path, json=body, headers=TOLD)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-headrace-token-ids"] == "1"
    stream = EventStream(False)
    given = stream.push(answer.content)
    assert stream.ended
    seed = answer.headers["x-headrace-seed"].encode()
    return Undisturbed(path, body, answer.content, given, seed, so_far(stream))


def so_far(stream: EventStream) -> dict[int, tuple[list[int], str | None]]:
    return {index: (choice.token_ids, choice.finish_reason) for index, choice in sorted(stream.choices.items())}


async def cut_and_continued(service: Service, whole: Undisturbed, place: int) -> tuple[bytes, bytes, EventStream]:
    """What a client got before the cut and after it; nothing before it, and nothing is continued."""
    stream = EventStream(False)
    before = stream.push(whole.raw[:place])
    if not before or stream.ended:
        return before, whole.given[len(before) :], stream
    body = forwarding.continuation(json.dumps(whole.body).encode(), whole.seed, identity(before), stream.choices)
    answer = await continued(service, whole.path, body)
    assert answer.status_code == 200, answer.text
    stream.new_source()
    after = stream.push(answer.content)
    assert stream.ended
    return before, after, stream


async def continued(service: Service, path: str, body: bytes) -> httpx.Response:
    headers = {**TOLD, "content-type": "application/json"}
    return await service.client.post(path, content=body, headers=headers)


def by_choice(given: bytes) -> dict[int | str, list[bytes]]:
    """The events of each choice in their order: those of several choices come in any order of the choices."""
    events: dict[int | str, list[bytes]] = {}
    for block in given.split(b"\n\n")[:-1]:
        line = block.removeprefix(b"data: ")
        parsed = {} if line == b"[DONE]" else json.loads(line)
        choices = parsed.get("choices") or [{"index": "end"}]
        events.setdefault(choices[0]["index"], []).append(block)
    return events
