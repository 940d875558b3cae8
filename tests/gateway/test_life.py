"""From a bound socket to the exit code: in this process, and as the command."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.cli.front import make_guard
from headrace.cli.main import main
from headrace.config import GatewayConfig, ServerConfig
from headrace.errors import Forbidden, Unauthorized
from headrace.gateway.assembly import assemble
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.life import CUT_SHORT, OK, Front, GatewayLife
from headrace.gateway.memory import load
from headrace.server import listen
from headrace.server.keys import new_key
from tests.gateway.scripted import Answer, ScriptedReplica, post, read_answer
from tests.gateway.test_prober import Health, until
from tests.gateway.test_proxy import run
from tests.gateway.test_supervisor import OPEN


class Own:
    """Replicas of its own, as far as the gateway's life sees them."""

    def __init__(self, code: int | None = None) -> None:
        self.code = code
        self.given_up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.calls: list[str] = []

    async def start(self) -> int | None:
        return self.code

    async def run(self) -> int:
        return await self.given_up

    async def stop(self, deadline_s: float) -> None:
        self.calls.append("stop")

    def kill(self) -> None:
        self.calls.append("kill")


class Running:
    """A gateway's life under way, before one replica whose answers wait until they are let go."""

    def __init__(self, life: GatewayLife, health: Health, port: int, announced: asyncio.Event) -> None:
        self.health, self.port, self.announced = health, port, announced
        self.over = asyncio.create_task(life.run())

    async def ask(self) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(post(b'{"prompt": "' + b"long " * 200 + b'"}', "/v1/completions"))
        try:
            return await read_answer(reader)
        finally:
            writer.close()


@asynccontextmanager
async def living(own: Own | None = None, drain_timeout_s: float = 5.0, **config: object) -> AsyncIterator[Running]:
    health = Health()
    replica = ScriptedReplica(health)
    url = f"http://127.0.0.1:{await replica.start()}"
    listener = listen.bind(ServerConfig(port=0))
    assembly = assemble(GatewayConfig(replicas=(url,), **config), OPEN, ClientLimits())  # type: ignore[arg-type]
    announced = asyncio.Event()
    life = GatewayLife(assembly, Front(listener, None, drain_timeout_s), announced.set, own)
    running = Running(life, health, listener.getsockname()[1], announced)
    try:
        yield running
    finally:
        if not running.over.done():
            running.over.cancel()
        await asyncio.gather(running.over, return_exceptions=True)
        assert not assembly.gateway.connections
        await replica.stop()


def test_a_signal_lets_what_runs_finish() -> None:
    async def test() -> None:
        async with living() as r:
            await r.announced.wait()
            asking = asyncio.create_task(r.ask())
            await until(lambda: r.health.let_go._waiters)  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05)
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", r.port)
            assert not r.over.done()
            r.health.let_go.set()
            assert (await asking).status == 200
            assert await r.over == OK

    run(test)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    async def test() -> None:
        own = Own()
        async with living(own) as r:
            await r.announced.wait()
            asking = asyncio.create_task(r.ask())
            await until(lambda: r.health.let_go._waiters)  # type: ignore[attr-defined]
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.02)
            os.kill(os.getpid(), number)
            assert await r.over == CUT_SHORT
            assert own.calls == ["kill", "stop"]
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await asking

    run(test)


def test_what_does_not_end_in_time_is_cut() -> None:
    async def test() -> None:
        async with living(drain_timeout_s=0.05) as r:
            await r.announced.wait()
            asking = asyncio.create_task(r.ask())
            await until(lambda: r.health.let_go._waiters)  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
            assert await r.over == OK
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await asking

    run(test)


def test_replicas_that_cannot_start_end_it_with_their_exit_code() -> None:
    async def test() -> None:
        own = Own(code=3)
        async with living(own) as r:
            assert await r.over == 3
            assert not r.announced.is_set()
            assert own.calls == ["stop"]

    run(test)


def test_replicas_that_are_given_up_end_it() -> None:
    async def test() -> None:
        own = Own()
        async with living(own) as r:
            await r.announced.wait()
            own.given_up.set_result(5)
            assert await r.over == 5
            assert own.calls == ["stop"]

    run(test)


def test_what_is_known_of_the_caches_is_kept_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "known"

    async def test() -> None:
        async with living(index_file=str(path)) as r:
            await r.announced.wait()
            r.health.let_go.set()
            assert (await r.ask()).status == 200
            os.kill(os.getpid(), signal.SIGTERM)
            assert await r.over == OK
        ((_, hashes),) = load(path).items()
        assert len(hashes) > 0

    run(test)


# ---------------------------------------------------------------- the command


def test_keys_of_the_gateway_are_the_servers() -> None:
    user, user_entry = new_key("u")
    admin, admin_entry = new_key("a", "admin")
    guard = make_guard(ServerConfig(host="0.0.0.0", api_keys=(str(user_entry), str(admin_entry))))
    assert not guard.is_open
    guard.check({"authorization": f"Bearer {user}"}, False)
    guard.check({"x-api-key": admin}, True)
    with pytest.raises(Unauthorized):
        guard.check({}, False)
    with pytest.raises(Forbidden):
        guard.check({"x-api-key": user}, True)


def test_without_keys_this_machine_administrates_and_others_do_not() -> None:
    local = make_guard(ServerConfig())
    assert local.is_open
    local.check({}, True)
    opened = make_guard(ServerConfig(host="0.0.0.0", no_auth=True))
    assert opened.is_open
    with pytest.raises(Forbidden):
        opened.check({}, True)


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["gateway", "--port", str(port)]) == 4
    assert str(port) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--policy", "nearest"], "nearest"),
        (["--replicas", "http://h:1,ftp://h"], "ftp://h"),
        (["--host", "0.0.0.0"], "authentication"),
        (["--tls-certificate", "/nowhere", "--tls-key", "/nowhere"], "/nowhere"),
        (["--recovery-s", "-1"], "recovery_s"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--port", "0", *arguments]) == 2
    assert word in capsys.readouterr().err
