"""Replicas that live with the gateway: processes that are started, fail, and are ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.config.gateway import GatewayConfig
from headrace.engine.remote.restart import RestartPolicy
from headrace.errors import InvalidRequest, ReplicaFailed
from headrace.gateway.assembly import Assembly, assemble
from headrace.gateway.child import Child
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.pages import Guard
from headrace.gateway.supervisor import GIVEN_UP, Supervisor
from tests.gateway.scripted import Answer, post, read_answer
from tests.gateway.test_proxy import run

SCRIPT = Path(__file__).with_name("fake_replica.py")
QUICK = RestartPolicy(first_delay_s=0.01, most_delay_s=0.02, max_failures=3)
OPEN = Guard(lambda credentials, is_admin: None, is_open=True)


class Starter:
    """Starts fake replicas; those named in `failing` end with that exit code."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        self.lines: list[tuple[str, str]] = []
        self.children: list[tuple[str, Child]] = []

    async def __call__(self, name: str) -> Child:
        command = [sys.executable, "-I", str(SCRIPT), *([str(self.failing[name])] if name in self.failing else [])]
        child = await Child.start(command, os.environ, lambda line: self.lines.append((name, line)))
        self.children.append((name, child))
        return child

    def pids(self, name: str) -> list[int]:
        return [child.pid for known, child in self.children if known == name]


@asynccontextmanager
async def supervised(
    count: int, starter: Starter, policy: RestartPolicy = QUICK
) -> AsyncIterator[tuple[Supervisor, Assembly]]:
    supervisor = Supervisor(starter, count, 5.0, policy)
    config = GatewayConfig(probe_interval_s=0.05, policy="round_robin")
    assembly = assemble(config, OPEN, ClientLimits(), {"own": supervisor})
    supervisor.fleet = assembly.gateway.router.fleet
    assembly.pages.supervisor = supervisor
    assembly.hub.start()
    await assembly.gateway.listen(host="127.0.0.1", port=0)
    try:
        yield supervisor, assembly
    finally:
        await supervisor.stop(1.0)
        await assembly.stop()
        for _, child in starter.children:
            assert not _is_alive(child.pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


async def ask(assembly: Assembly, body: object = None, target: str = "/v1/chat/completions") -> Answer:
    reader, writer = await asyncio.open_connection(*assembly.gateway.addresses[0])
    writer.write(post(body or {"model": "fake"}, target))
    try:
        return await read_answer(reader)
    finally:
        writer.close()


def names(assembly: Assembly) -> list[str]:
    return sorted(replica.name for replica in assembly.gateway.router.fleet)


def test_replicas_are_started_listed_and_ended() -> None:
    async def test() -> None:
        starter = Starter()
        async with supervised(2, starter) as (supervisor, assembly):
            assert await supervisor.start() is None
            await until(lambda: names(assembly) == ["replica-0", "replica-1"])
            pids = {(await ask(assembly)).json["pid"] for _ in range(4)}
            assert pids == {child.pid for _, child in starter.children}
        assert {("replica-0", "a line before"), ("replica-1", "a line before")} <= set(starter.lines)
        assert ("replica-1", "drained") in starter.lines

    run(test)


@pytest.mark.parametrize(("code", "expected"), [(3, 3), (2, 2), (1, GIVEN_UP)])
def test_when_none_can_be_started_the_gateway_ends(code: int, expected: int) -> None:
    async def test() -> None:
        starter = Starter()
        starter.failing = {"replica-0": code, "replica-1": code}
        async with supervised(2, starter) as (supervisor, _):
            assert await supervisor.start() == expected
        if code == 1:
            assert len(starter.children) == 2 * (1 + QUICK.max_failures)
        else:
            assert len(starter.children) == 2  # not tried again

    run(test)


def test_one_that_is_killed_is_started_again_and_no_request_is_lost() -> None:
    async def test() -> None:
        starter = Starter()
        async with supervised(2, starter) as (supervisor, assembly):
            assert await supervisor.start() is None
            await until(lambda: len(names(assembly)) == 2)
            asking = [asyncio.create_task(ask(assembly, {"takes_s": 0.2})) for _ in range(6)]
            await until(lambda: all(r.num_in_flight for r in assembly.gateway.router.fleet))
            os.kill(starter.pids("replica-0")[0], signal.SIGKILL)
            assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 6
            await until(lambda: len(starter.pids("replica-0")) == 2 and len(names(assembly)) == 2)
            pids = {(await ask(assembly)).json["pid"] for _ in range(4)}
            assert pids == {starter.pids("replica-0")[1], starter.pids("replica-1")[0]}

    run(test)


def test_one_that_ends_again_and_again_is_given_up_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        starter = Starter()
        async with supervised(2, starter) as (supervisor, assembly):
            assert await supervisor.start() is None
            await until(lambda: len(names(assembly)) == 2)
            starter.failing["replica-0"] = 1
            os.kill(starter.pids("replica-0")[0], signal.SIGKILL)
            await until(lambda: "given up" in caplog.text)
            assert len(starter.pids("replica-0")) == 1 + QUICK.max_failures
            assert names(assembly) == ["replica-1"]
            assert (await ask(assembly)).status == 200
            ending = asyncio.create_task(supervisor.run())
            starter.failing["replica-1"] = 1
            os.kill(starter.pids("replica-1")[0], signal.SIGKILL)
            assert await asyncio.wait_for(ending, 10) == GIVEN_UP

    run(test)
    assert "replica-0 was ended by SIGKILL" in caplog.text
    assert "it cannot be: 1" in caplog.text


def test_restarting_all_in_turn_loses_no_request() -> None:
    async def test() -> None:
        starter = Starter()
        async with supervised(2, starter) as (supervisor, assembly):
            assert await supervisor.start() is None
            await until(lambda: len(names(assembly)) == 2)
            statuses: list[int] = []
            over = asyncio.Event()

            async def client() -> None:
                while not over.is_set():
                    statuses.append((await ask(assembly, {"takes_s": 0.03})).status)

            clients = [asyncio.create_task(client()) for _ in range(8)]
            answer = await ask(assembly, {}, "/admin/rolling_restart")
            over.set()
            await asyncio.gather(*clients)
            assert answer.json == {"restarted": ["replica-0", "replica-1"]}
            assert len(statuses) > 20
            assert set(statuses) == {200}
            assert assembly.journal.counts["sent_retry"] == 0  # nothing even had to be sent again
            assert [len(starter.pids(name)) for name in ("replica-0", "replica-1")] == [2, 2]
            assert len(names(assembly)) == 2

    run(test)


def test_a_restart_that_would_lose_requests_or_cannot_be_is_refused() -> None:
    async def test() -> None:
        starter = Starter()
        async with supervised(1, starter) as (supervisor, assembly):
            assert await supervisor.start() is None
            with pytest.raises(InvalidRequest, match="scale to 2"):
                await supervisor.rolling_restart()
            assert await supervisor.scale(2) == 2
            starter.failing["replica-0"] = 3
            with pytest.raises(ReplicaFailed, match="replica-0"):
                await supervisor.rolling_restart()
            assert names(assembly) == ["replica-1"]
            assert (await ask(assembly)).status == 200

    run(test)


def test_more_and_fewer() -> None:
    async def test() -> None:
        starter = Starter()
        async with supervised(1, starter) as (supervisor, assembly):
            assert await supervisor.start() is None
            assert (await ask(assembly, {"replicas": 3}, "/admin/scale")).json == {"replicas": 3}
            assert names(assembly) == ["replica-0", "replica-1", "replica-2"]
            slow = [asyncio.create_task(ask(assembly, {"takes_s": 0.3})) for _ in range(6)]
            await until(lambda: all(r.num_in_flight for r in assembly.gateway.router.fleet))
            assert (await ask(assembly, {"replicas": 1}, "/admin/scale")).json == {"replicas": 1}
            assert [answer.status for answer in await asyncio.gather(*slow)] == [200] * 6
            assert names(assembly) == ["replica-0"]
            assert assembly.journal.counts["sent_retry"] == 0
            starter.failing["replica-3"] = 3
            with pytest.raises(ReplicaFailed):
                await supervisor.scale(2)
            assert names(assembly) == ["replica-0"]

    run(test)


def test_children_that_do_not_end_are_killed() -> None:
    async def test() -> None:
        stubborn = "import signal as s, time as t; s.signal(s.SIGTERM, s.SIG_IGN); print('', flush=True); t.sleep(60)"
        lines: list[str] = []
        child = await Child.start([sys.executable, "-I", "-c", stubborn], os.environ, lines.append)
        await until(lambda: lines)
        assert await child.stop(0.05) == -signal.SIGKILL

    run(test)


def test_lines_of_any_kind_are_read() -> None:
    async def test() -> None:
        code = "import sys; w = sys.stdout.buffer.write; w(b'x' * 3_000_000 + b'\\n' + b'\\xff\\n' + b'no end')"
        lines: list[str] = []
        child = await Child.start([sys.executable, "-I", "-c", code], os.environ, lines.append)
        assert await child.ended() == 0
        assert not await child.ready()
        assert lines[-2:] == ["\ufffd", "no end"]
        assert max(map(len, lines)) <= 1 << 20
        assert child.last_words == "no end"

    run(test)


def test_what_went_wrong_is_told_in_json() -> None:
    async def test() -> None:
        starter = Starter()
        async with supervised(1, starter) as (supervisor, assembly):
            assert await supervisor.start() is None
            await until(lambda: names(assembly))
            answer = await ask(assembly, {"replicas": 0}, "/admin/scale")
            assert answer.status == 400
            assert "replicas" in json.loads(answer.body)["error"]["message"]

    run(test)
