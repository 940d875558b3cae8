"""Active health checks, against scripted replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.gateway.blocks import BLOCK_TOKENS
from headrace.gateway.health.prober import Prober, ProbeSettings
from headrace.gateway.replica import Replica
from tests.gateway.scripted import Asked, Script, Stage, stage, whole
from tests.gateway.test_proxy import run

MODELS = {"object": "list", "data": [{"id": "tiny"}, {"id": "other"}]}
SETTINGS = ProbeSettings(interval_s=0.02, timeout_s=0.15)


class Health:
    """A replica whose health a test sets; other requests wait until they are let go."""

    def __init__(self, status: int | None = 200, paths: tuple[str, ...] = ("/health/ready", "/v1/models")) -> None:
        self.status = status
        self.paths = paths
        self.models = MODELS
        self.num_cache_tokens = self.asked_load = 0
        self.let_go = asyncio.Event()

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.method == "POST":
            await self.let_go.wait()
            writer.write(whole(200, {"done": True}))
        elif self.status is None:
            await asyncio.Event().wait()
        elif asked.target == "/load" and self.num_cache_tokens:
            self.asked_load += 1
            writer.write(whole(200, {"num_cache_tokens": self.num_cache_tokens}))
        elif asked.target not in self.paths:
            writer.write(whole(404, {}))
        elif asked.target == "/v1/models":
            writer.write(whole(self.status, self.models))
        else:
            writer.write(whole(self.status, {}, x_headrace_load="running=3,waiting=2,tokens=40,kv=0.50"))


@asynccontextmanager
async def probed(
    *healths: Script, settings: ProbeSettings = SETTINGS
) -> AsyncIterator[tuple[Stage, list[tuple[str, str]]]]:
    told: list[tuple[str, str]] = []

    def changed(replica: Replica, state: str) -> None:
        told.append((replica.name, state))

    async with stage(*healths) as s:
        prober = Prober(s.gateway, settings, changed)
        prober.follow()
        try:
            yield s, told
        finally:
            await prober.stop()


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def test_models_and_load_are_learnt() -> None:
    async def test() -> None:
        async with probed(Health()) as (s, told):
            await until(lambda: s.fleet[0].models)
            assert s.fleet[0].models == ("tiny", "other")
            assert (s.fleet[0].load.num_running, s.fleet[0].load.cache_ratio) == (3, 0.5)
            assert told == []

    run(test)


def test_the_index_is_bounded_by_the_cache_that_a_replica_reports() -> None:
    async def test() -> None:
        small, silent = Health(), Health()
        small.num_cache_tokens = 40 * BLOCK_TOKENS
        async with probed(small, silent) as (s, _):
            index = s.gateway.router.index

            def held(place: int) -> int:
                for first in range(0, 500, 10):
                    index.record([number << 5 for number in range(first, first + 10)], s.fleet[place].number)
                return len(set(index.hashes(s.fleet[place].number)))

            await until(lambda: all(replica.models for replica in s.fleet))
            assert held(0) <= 40 + 10
            assert held(1) == 500
            small.status = 503
            await until(lambda: not s.fleet[0].is_up)
            small.num_cache_tokens = 80 * BLOCK_TOKENS
            small.status = 200
            await until(lambda: s.fleet[0].is_up)
            await until(lambda: small.asked_load == 2)
            await until(lambda: 50 < held(0) <= 80 + 10)

    run(test)


def test_a_replica_whose_connections_broke_is_tried_again_when_it_is_well() -> None:
    async def test() -> None:
        async with probed(Health()) as (s, _):
            (replica,) = s.fleet
            await until(lambda: replica.models)
            for _ in range(3):
                replica.breaker.record(False, time.monotonic() - 1.0, is_connection=True)
            await until(lambda: replica.condition(time.monotonic()) == "trial")

    run(test)


def test_a_server_that_does_not_know_the_path_is_asked_another_way() -> None:
    async def test() -> None:
        async with probed(Health(paths=("/v1/models",))) as (s, told):
            await until(lambda: s.fleet[0].models)
            asked = [asked.target for asked in s.replicas[0].asked]
            assert asked[:3] == ["/health/ready", "/health", "/v1/models"]
            await until(lambda: len(s.replicas[0].asked) > 8)
            assert {asked.target for asked in s.replicas[0].asked[3:]} == {"/v1/models"}
            assert s.fleet[0].is_up
            assert told == []

    run(test)


def test_silence_takes_a_replica_out_in_a_second_and_its_requests_elsewhere() -> None:
    async def test() -> None:
        silent, well = Health(), Health()
        well.let_go.set()
        async with probed(silent, well, settings=ProbeSettings()) as (s, told):
            await until(lambda: all(replica.models for replica in s.fleet))
            asking = asyncio.create_task(s.ask({"model": "tiny", "messages": []}))
            await until(lambda: s.fleet[0].num_in_flight)
            silent.status = None
            begun_s = time.monotonic()
            answer = await asking
            assert time.monotonic() - begun_s < 1.2
            assert answer.status == 200
            assert [name for name, _ in told] == ["r0"]
            assert s.fleet[0].condition(time.monotonic()) == "down"
            assert s.notes.attempts == [("r0", "failed"), ("r1", "ok")]
            silent.status = 200
            await until(lambda: s.fleet[0].is_up)
            assert told[-1] == ("r0", "up")

    run(test)


def test_one_lost_answer_changes_nothing() -> None:
    async def test() -> None:
        health, lost = Health(), 0

        async def loses_one(asked: Asked, writer: asyncio.StreamWriter) -> None:
            nonlocal lost
            if len(s.replicas[0].asked) == 5:
                lost += 1
                writer.transport.abort()
            else:
                await health(asked, writer)

        async with probed(loses_one) as (s, told):
            await until(lambda: len(s.replicas[0].asked) > 9)
            assert lost == 1
            assert told == []

    run(test)


def test_one_that_says_no_gets_nothing_new_and_finishes_what_it_has() -> None:
    async def test() -> None:
        draining, other = Health(), Health()
        async with probed(draining, other) as (s, _):
            await until(lambda: all(replica.models for replica in s.fleet))
            asking = asyncio.create_task(s.ask({"model": "tiny", "messages": []}))
            await until(lambda: s.fleet[0].num_in_flight)
            draining.status = 503
            await until(lambda: not s.fleet[0].is_up)
            draining.let_go.set()
            assert (await asking).status == 200
            assert s.notes.attempts == [("r0", "ok")]

    run(test)


def test_a_server_that_wants_a_key_is_well() -> None:
    async def test() -> None:
        async with probed(Health(status=401)) as (s, told):
            await until(lambda: len(s.replicas[0].asked) > 4)
            assert s.fleet[0].is_up
            assert told == []

    run(test)


def test_the_gateways_key_goes_with_probes() -> None:
    async def test() -> None:
        settings = ProbeSettings(interval_s=0.02, api_key="hr-Secret")
        async with probed(Health(), settings=settings) as (s, _):
            await until(lambda: s.replicas[0].asked)
            assert s.replicas[0].asked[0].headers["authorization"] == "bearer hr-secret"  # the script lowers headers
        assert "Secret" not in repr(settings)

    run(test)


def test_what_comes_back_is_asked_again_what_it_serves() -> None:
    async def test() -> None:
        health = Health()
        async with probed(health) as (s, _):
            await until(lambda: s.fleet[0].models)
            health.status = 500
            await until(lambda: not s.fleet[0].is_up)
            health.models = {"object": "list", "data": [{"id": "new"}]}
            health.status = 200
            await until(lambda: s.fleet[0].models == ("new",))

    run(test)


def test_who_leaves_the_fleet_is_not_probed() -> None:
    async def test() -> None:
        async with stage(Health(), Health()) as s:
            prober = Prober(s.gateway, SETTINGS)
            prober.follow()
            await until(lambda: all(replica.asked for replica in s.replicas))
            s.gateway.update([s.fleet[0].endpoint])
            prober.follow()
            await asyncio.sleep(0)
            num_asked, first = len(s.replicas[1].asked), len(s.replicas[0].asked)
            await until(lambda: len(s.replicas[0].asked) > first + 4)
            assert len(s.replicas[1].asked) <= num_asked + 1  # one may have been on its way
            await prober.stop()
            await until(lambda: not any(replica.writers for replica in s.replicas))

    run(test)
