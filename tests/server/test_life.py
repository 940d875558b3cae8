"""From start to exit code: in this process over a cost model, and as the command in processes of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.config import ServerConfig
from headrace.engine.remote import EngineSpec, SimulatedSpec
from headrace.engine.remote.building import build
from headrace.engine.remote.local import LocalEngine
from headrace.errors import AddressNotAvailable, ConfigError, ModelNotSupported
from headrace.server import exit_codes, listen
from headrace.server.lifecycle import ServerLife
from tests.server.service import VOCAB_SIZE, chat, events, in_loop, tokenizer

Announced = asyncio.Event


def life(config: ServerConfig, make: Any = None, load: Any = tokenizer, **simulated: Any):
    """A server's life with a local engine; its URL, and what is set when it serves."""
    listener = listen.bind(config)
    announced = asyncio.Event()
    spec = EngineSpec(model="builtin", simulated=SimulatedSpec(vocab_size=VOCAB_SIZE, **simulated))
    make = make or (lambda on_change, _: LocalEngine(partial(build, spec), clock=time.monotonic, on_change=on_change))
    return ServerLife(config, "builtin", listener, make, load, announced.set), listen.url(config, listener), announced


@in_loop
async def test_a_signal_lets_what_runs_finish() -> None:
    server, url, announced = life(ServerConfig(port=0), step_s=0.005)
    running = asyncio.create_task(server.run())
    await announced.wait()
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        assert (await client.get("/health/ready")).status_code == 200
        answer = asyncio.create_task(client.post("/v1/chat/completions", json=chat(max_tokens=100, stream=True)))
        while "running=1" not in (await client.get("/health/live")).headers["x-headrace-load"]:
            await asyncio.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.02)
        refused = await client.post("/v1/chat/completions", json=chat())
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert events((await answer).text)[-1] == "[DONE]"
    assert await running == exit_codes.OK


@in_loop
async def test_what_does_not_finish_in_time_is_told() -> None:
    server, url, announced = life(ServerConfig(port=0, drain_timeout_s=0.2), step_s=0.01)
    running = asyncio.create_task(server.run())
    await announced.wait()
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        answer = asyncio.create_task(client.post("/v1/chat/completions", json=chat(max_tokens=4000, stream=True)))
        await asyncio.sleep(0.1)
        server.drain(None)
        assert events((await answer).text)[-1]["error"]["code"] == "engine_stopped"
    assert await running == exit_codes.OK


@in_loop
async def test_a_second_signal_ends_at_once() -> None:
    server, url, announced = life(ServerConfig(port=0), step_s=0.01)
    running = asyncio.create_task(server.run())
    await announced.wait()
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        answer = asyncio.create_task(client.post("/v1/chat/completions", json=chat(max_tokens=4000, stream=True)))
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.01)
        await asyncio.gather(answer, return_exceptions=True)
        assert await running == exit_codes.CUT_SHORT
        assert time.monotonic() - begin < 5


@in_loop
async def test_it_answers_before_it_is_ready_and_a_signal_ends_a_start() -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def load() -> Any:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)
        return tokenizer()

    server, url, announced = life(ServerConfig(port=0), load=load)
    running = asyncio.create_task(server.run())
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        not_ready = await client.get("/health/ready")
        assert (not_ready.status_code, not_ready.json()["status"]) == (503, "not ready")
        assert (await client.get("/health/live")).status_code == 200
        refused = await client.post("/v1/chat/completions", json=chat())
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert not announced.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        release.set()
    assert await running == exit_codes.OK
    assert not announced.is_set()


@in_loop
async def test_what_keeps_it_from_starting_is_raised() -> None:
    def make(on_change: Any, _: Any) -> LocalEngine:
        def fail() -> Any:
            raise ModelNotSupported("no such model")

        return LocalEngine(fail, on_change=on_change)

    server, _, _ = life(ServerConfig(port=0), make)
    with pytest.raises(ModelNotSupported, match="no such model"):
        await server.run()


def test_a_taken_port_is_said_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressNotAvailable, match=f"127.0.0.1:{port} is taken"):
            listen.bind(ServerConfig(port=port))
    with pytest.raises(AddressNotAvailable, match="no address of this machine"):
        listen.bind(ServerConfig(host="192.0.2.1", port=0, no_auth=True))
    with pytest.raises(AddressNotAvailable, match="is no address"):
        listen.bind(ServerConfig(host="no.such.host.invalid", port=0, no_auth=True))


def test_unix_sockets(tmp_path: Path) -> None:
    config = ServerConfig(uds=str(tmp_path / "s"))
    first = listen.bind(config)
    with pytest.raises(AddressNotAvailable, match="taken"):
        listen.bind(config)
    first.close()  # its file stays, and nobody listens
    listen.bind(config).close()


def test_urls() -> None:
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "localhost")):
        config = ServerConfig(host=host, port=0, no_auth=True)
        with listen.bind(config) as listener:
            assert listen.url(config, listener) == f"http://{shown}:{listener.getsockname()[1]}"


def test_the_http_process_needs_no_torch() -> None:
    code = (
        "import sys, headrace.server.lifecycle, headrace.server.making, headrace.server.backend;"
        "import headrace.server.http_server, headrace.engine.remote.process, headrace.server.tokenizers as t;"
        "t.tokenizer_of('builtin'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# ---------------------------------------------------------------- the command


@contextmanager
def command(*arguments: str, wait: bool = True) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`headrace serve` in its own processes, and its URL once it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", "serve", *arguments], stderr=subprocess.PIPE, text=True
    )
    try:
        lines: list[str] = []
        while wait and not (lines and " serving " in lines[-1]):
            assert process.stderr is not None
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        yield process, lines[-1].split()[-1] if lines else ""
    finally:
        process.kill()
        process.wait(20)
        assert process.stderr is not None
        process.stderr.close()


def get(url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
def test_the_builtin_model_is_served_and_drains() -> None:
    with command("builtin", "--port", "0") as (process, url):
        assert get(f"{url}/health/ready")[0] == 200
        status, answer = get(f"{url}/v1/chat/completions", chat(temperature=0, max_tokens=20))
        assert status == 200
        assert answer["choices"][0]["message"]["content"]
        second = subprocess.run(
            [sys.executable, "-m", "headrace.cli.main", "serve", "builtin", "--port", url.rsplit(":", 1)[1]],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert second.returncode == exit_codes.ADDRESS_NOT_AVAILABLE
        assert "is taken by another process" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == exit_codes.OK


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_readiness_follows_the_engine(number: signal.Signals) -> None:
    with command("builtin", "--port", "0", "--simulated", "step_s=0.001") as (process, url):
        pid = _child_of(process.pid)
        os.kill(pid, number)
        begin = time.monotonic()
        while get(f"{url}/health/ready")[0] == 200:
            assert time.monotonic() - begin < 5
            time.sleep(0.05)
        if number == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
        while get(f"{url}/health/ready")[0] != 200:
            assert time.monotonic() - begin < 40
            time.sleep(0.1)
        assert get(f"{url}/v1/chat/completions", chat())[0] == 200


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.slow
def test_exit_codes_of_a_start_that_fails(tmp_path: Path) -> None:
    for arguments, code, words in (
        (("builtin", "--port", "0", "--host", "0.0.0.0"), exit_codes.USAGE, "need authentication"),
        (("builtin", "--port", "0", "--simulated", "foo=1"), exit_codes.USAGE, "KEY=VALUE"),
        ((str(tmp_path), "--port", "0"), exit_codes.MODEL_NOT_LOADED, "error"),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "headrace.cli.main", "serve", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == code, run.stderr
        assert words in run.stderr.splitlines()[-1]


def test_help_is_quick_and_names_the_exit_codes() -> None:
    begin = time.monotonic()
    run = subprocess.run([sys.executable, "-m", "headrace.cli.main", "serve", "--help"], capture_output=True, text=True)
    assert time.monotonic() - begin < 3  # 0.08 s alone; import of torch or transformers takes more
    assert "exit codes:" in run.stdout
    code = "import sys; from headrace.cli.main import main\ntry: main(['serve', '--help'])\nexcept SystemExit: pass\n"
    check = "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'uvicorn')))"
    assert subprocess.run([sys.executable, "-c", code + check], capture_output=True).returncode == 0


# ---------------------------------------------------------------- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    (tmp_path / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*form))
    return str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")


@in_loop
async def test_tls(certificate: tuple[str, str]) -> None:
    config = ServerConfig(host="localhost", port=0, tls_certificate=certificate[0], tls_key=certificate[1])
    server, url, announced = life(config)
    running = asyncio.create_task(server.run())
    await announced.wait()
    assert url.startswith("https://localhost:")
    trusted = ssl.create_default_context(cafile=certificate[0])
    async with httpx.AsyncClient(base_url=url, timeout=20, verify=trusted) as client:
        answer = await client.post("/v1/chat/completions", json=chat(stream=True))
        assert events(answer.text)[-1] == "[DONE]"
    server.drain(None)
    assert await running == exit_codes.OK


@in_loop
async def test_a_certificate_that_cannot_be_used(certificate: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    for path in ("no.pem", "missing.pem"):
        config = ServerConfig(port=0, tls_certificate=str(tmp_path / path), tls_key=certificate[1])
        server, _, _ = life(config)
        with pytest.raises(ConfigError, match="tls_certificate"):
            await server.run()
