"""Thousands of requests of every kind: each ends exactly once, and nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import httpx
import pytest

from tests.contract.process import Server, is_idle, seconds_until, serving, simulated
from tests.server_faults.mixed import Mix, Tally


def run_mix(server: Server, num_requests: int, seed: int) -> Tally:
    async def run() -> Tally:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            return await Mix(client, seed).run(num_requests, 32)

    tally = asyncio.run(run())
    gc.collect()
    return tally


def figures(server: Server) -> tuple[int, int]:
    """Tasks of the server and its open files, when it is idle."""
    seconds_until(lambda: is_idle(server.state()), 30)
    return server.state()["server"]["num_tasks"], server.num_descriptors()


def assert_clean(server: Server, before: tuple[int, int], tally: Tally) -> None:
    """As before, and a line in the log for each request, neither none nor two."""
    assert not tally.problems, tally.problems[:10]
    seconds_until(lambda: all(now <= then for now, then in zip(figures(server), before, strict=True)))
    assert server.get("/admin/integrity").json()["ok"]
    assert server.get("/load").json()["num_running"] == server.get("/load").json()["num_waiting"] == 0
    seconds_until(lambda: _named(server, tally).keys() >= set(tally.ids))
    twice = {name: count for name, count in _named(server, tally).items() if count != 1}
    assert not twice
    assert "Traceback" not in server.log
    assert "never retrieved" not in server.log


def _named(server: Server, tally: Tally) -> Counter[str]:
    """How often each request is named in a line of the log."""
    words = (word for line in list(server.lines) for word in line.replace("=", " ").split() if word[:4] == "mix-")
    return Counter(words)


@pytest.mark.slow
def test_three_hundred_requests() -> None:
    with serving("builtin", *simulated(step_s=0.002, max_model_len=4096), "--check-integrity") as server:
        run_mix(server, 10, 1)
        before = figures(server)
        server.lines.clear()
        assert_clean(server, before, run_mix(server, 300, 2))


@pytest.mark.slow
def test_five_thousand_requests() -> None:
    with serving("builtin", "--check-integrity") as server:
        run_mix(server, 100, 1)
        before = figures(server)
        memory = _rss_mb(server)
        server.lines.clear()
        tally = run_mix(server, 5000, 2)
        assert_clean(server, before, tally)
        assert min(tally.kinds.values()) > 300
        assert _rss_mb(server) < memory + 60


def _rss_mb(server: Server) -> float:
    with open(f"/proc/{server.process.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
