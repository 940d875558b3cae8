"""Real servers behind a real gateway; the one that answers is killed in mid-stream."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from headrace.gateway.child import Child
from headrace.gateway.fleet import Fleet
from headrace.gateway.gateway import Gateway
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.http.upstream import UpstreamPool
from headrace.gateway.policies import get_policy
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.replica import Endpoint
from headrace.gateway.route import ProxySettings, Router
from tests.gateway.scripted import Notes
from tests.server.service import events, in_loop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SERVE = (sys.executable, "-m", "headrace.cli.main", "serve", "builtin", "--no-auth", "--host", "127.0.0.1")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "HEADRACE_CPU_THREADS": "1"}
STORY = [{"role": "user", "content": "Tell me a story of a mill."}]
TEXT: dict[str, Any] = {"max_tokens": 160, "ignore_eos": True, "stream": True}


@asynccontextmanager
async def gateway_over(children: dict[str, Child]) -> AsyncIterator[tuple[httpx.AsyncClient, Notes]]:
    index, notes, ids = PrefixIndex(), Notes(), itertools.count()
    router = Router(
        Fleet(index, None), get_policy("round_robin", Random(1), index), index, ProxySettings(), notes,
        time.monotonic, time.time, lambda: f"id-{next(ids)}", lambda replica: UpstreamPool(replica.endpoint, None),
    )  # fmt: skip
    gateway = Gateway(router, ClientLimits())
    places = {name: urlsplit(child.url or "") for name, child in children.items()}
    gateway.update([Endpoint(name, url.hostname or "", url.port or 0) for name, url in places.items()])
    await gateway.listen(host="127.0.0.1", port=0)
    url = f"http://127.0.0.1:{gateway.addresses[0][1]}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            yield client, notes
    finally:
        await gateway.close()


@asynccontextmanager
async def two_servers() -> AsyncIterator[dict[str, Child]]:
    children = {f"r{i}": await Child.start([*SERVE, "--port", "0"], ONE_THREAD, lambda line: None) for i in range(2)}
    try:
        for child in children.values():
            assert await child.ready(), child.last_words
        yield children
    finally:
        for child in children.values():
            await child.stop(5.0)


def engine_of(child: Child) -> int:
    """The process that has the model."""
    tasks = Path(f"/proc/{child.pid}/task").glob("*/children")
    return next(int(pid) for task in tasks for pid in task.read_text().split())


def text_of(answer: str) -> dict[int, str]:
    texts: dict[int, str] = {}
    for event in events(answer):
        if isinstance(event, dict) and event.get("type") == "content_block_delta":
            texts[0] = texts.get(0, "") + event["delta"]["text"]
        for choice in event.get("choices", ()) if isinstance(event, dict) else ():
            delta = choice.get("delta", {}).get("content") or choice.get("text", "")
            texts[choice["index"]] = texts.get(choice["index"], "") + delta
    return texts


async def asked(client: httpx.AsyncClient, path: str, body: dict[str, Any], victims: dict[str, int]) -> str:
    """The stream as the client got it; who answers is killed after a part of it, where it is one of `victims`."""
    given = ""
    async with client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        route = answer.headers["x-headrace-route"].split(";")[0].removeprefix("replica=")
        async for data in answer.aiter_text():
            given += data
            if given.count("data:") > 60 and route in victims:
                os.kill(victims.pop(route), signal.SIGKILL)
                victims.clear()
    return given


@pytest.mark.parametrize("killed", ["server", "engine"])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"temperature": 0, "stream_options": {"include_usage": True}}),
        ("/v1/chat/completions", {"temperature": 0.9, "seed": 5, "n": 2, "stream_options": {"include_usage": True}}),
        ("/v1/messages", {"temperature": 0.9, "seed": 6}),
    ],
    ids=["greedy", "drawn", "messages"],
)
@in_loop
async def test_the_client_sees_nothing_of_it(path: str, fields: dict[str, Any], killed: str) -> None:
    body = {"messages": STORY, **TEXT, **fields}
    async with two_servers() as children, gateway_over(children) as (client, notes):
        whole = await asked(client, path, body, {})
        pids = {name: child.pid if killed == "server" else engine_of(child) for name, child in children.items()}
        cut = await asked(client, path, body, pids)
        assert not pids, "nobody was killed"
    assert text_of(cut) == text_of(whole)
    assert max(map(len, text_of(whole).values())) > 200
    assert cut.count("data:") == whole.count("data:")
    assert [outcome for _, outcome in notes.attempts].count("failed") == 1
    assert [outcome for outcome, *_ in notes.finishes] == ["ok", "ok"]
    (_, _, tokens), (_, _, tokens_of_cut) = notes.finishes
    assert (tokens_of_cut[0], tokens_of_cut[2]) == (tokens[0], tokens[2])  # those from the cache may differ
    assert tokens[2] == body["max_tokens"] * body.get("n", 1)
    ids = {event["id"] for event in events(cut) if isinstance(event, dict) and "id" in event}
    assert len(ids) == (path != "/v1/messages")
    assert json.dumps(events(cut)[-1]) == json.dumps(events(whole)[-1])
