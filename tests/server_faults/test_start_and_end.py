"""From the first line to the exit code: addresses that are taken, no disk, readiness, draining."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.process import Server, headrace, seconds_until, serving, simulated
from tests.server_faults.sockets import CHAT, chat_body, connected, events, read_all, read_until, request_bytes


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A server that is to end by itself."""
    command = headrace("serve", "builtin", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = serve(*simulated(), "--port", port)
    assert found.returncode == 4
    assert f"127.0.0.1:{port} is taken" in found.stderr
    assert "--port 0" in found.stderr


def test_a_second_server_on_the_same_port(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    begin = time.monotonic()
    found = serve(*simulated(), "--port", port)
    assert (found.returncode, f":{port} is taken" in found.stderr) == (4, True)
    assert time.monotonic() - begin < 20, "it says so before it loads anything"
    assert server.get("/health/ready").status_code == 200


@pytest.mark.slow
def test_a_second_server_on_the_same_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving("builtin", *simulated(), "--uds", str(path)) as server:
        found = serve(*simulated(), "--uds", str(path))
        assert (found.returncode, "taken" in found.stderr) == (4, True)
        assert server.process.poll() is None
    with serving("builtin", *simulated(), "--uds", str(path)):
        pass  # what a server left behind is in nobody's way


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--host", "192.0.2.1", "--no-auth"], 4, "no address of this machine"),
        (["--port", "70000"], 2, "70000"),
        (["--no-such-flag"], 2, "no-such-flag"),
        (["--num-blocks", "-3"], 2, "num_blocks"),
        (["--queue-timeout-s", "-1"], 2, "queue_timeout_s"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_is_said_at_once(flags: list[str], code: int, words: str) -> None:
    found = serve(*simulated(), *([] if "--port" in flags else ["--port", "0"]), *flags)
    assert found.returncode == code
    assert words in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    command = headrace("serve", str(tmp_path / "nothing"), "--port", "0")
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 3
    assert "nothing" in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr.splitlines()[-1]


def test_a_disk_that_is_full() -> None:
    """What cannot be logged is lost; what is asked is answered."""
    with serving("builtin", *simulated(), "--log-file", "/dev/full") as server:
        for _ in range(20):
            assert server.post(CHAT, chat_body(max_tokens=2)).status_code == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_log_file_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = serve(*simulated(), "--port", "0", "--log-file", str(tmp_path / "file" / "log"))
    assert found.returncode == 2
    assert "log" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_nobody_reads_what_it_writes() -> None:
    """Standard error goes into a pipe whose reader has left."""
    command = ["bash", "-c", 'exec "$@" 2> >(grep -m1 --line-buffered serving >&2)', "-", *headrace("serve")]
    with serving("builtin", *simulated(), command=command) as server:
        for _ in range(5):
            assert server.post(CHAT, chat_body(max_tokens=2)).status_code == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.slow
def test_term_finishes_what_runs_and_takes_nothing_new() -> None:
    with serving("builtin", *simulated(step_s=0.01)) as server, connected(server) as sock, connected(server) as idle:
        sock.sendall(request_bytes(chat_body(max_tokens=100, stream=True)))
        read_until(sock, b"data: ")
        server.signal(signal.SIGTERM)
        seconds_until(lambda: server.get("/health/ready").status_code == 503)
        refused = server.post(CHAT, chat_body(max_tokens=1))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_draining")
        assert server.get("/health/live").status_code == 200
        seen = [e for e in events(read_all(sock).decode()) if e != "[DONE]"]
        assert seen[-1]["choices"][0]["finish_reason"] == "length"
        assert server.wait() == 0
        assert idle.recv(1) == b""


@pytest.mark.slow
def test_term_while_nothing_runs_and_again_while_it_starts() -> None:
    with serving("builtin", *simulated()) as server:
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
    starting = Server("builtin", "--port", "0")
    try:
        starting.wait_for_line("starting")
        starting.signal(signal.SIGTERM)
        assert starting.wait(20) == 0
    finally:
        starting.end()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_does_not_end_in_time_is_told_so(number: signal.Signals) -> None:
    flags = [*simulated(step_s=0.01), "--drain-timeout-s", "0.3"]
    with serving("builtin", *flags) as server, connected(server) as streamed, connected(server) as whole:
        streamed.sendall(request_bytes(chat_body(stream=True)))
        whole.sendall(request_bytes(chat_body()))
        read_until(streamed, b"data: ")
        seconds_until(lambda: server.get("/load").json()["num_running"] == 2)
        server.signal(number)
        last = events(read_all(streamed).decode())[-1]
        assert last["error"]["code"] in ("engine_stopped", "server_draining", "request_cancelled")
        assert b"HTTP/1.1 503" in read_all(whole)
        assert server.wait() == 0


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once() -> None:
    with serving("builtin", *simulated(step_s=0.01)) as server, connected(server) as sock:
        sock.sendall(request_bytes(chat_body(stream=True)))
        read_until(sock, b"data: ")
        server.signal(signal.SIGTERM)
        server.wait_for_line("no new work")
        begin = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 130
        assert time.monotonic() - begin < 10


@pytest.mark.slow
def test_an_administrator_drains_it() -> None:
    with serving("builtin", *simulated()) as server:
        assert server.post("/admin/drain", {"deadline_s": 5}).status_code == 202
        assert server.wait() == 0


@pytest.mark.slow
def test_nothing_is_left_of_a_server_that_is_killed() -> None:
    with serving("builtin", *simulated()) as server:
        engine = server.engine_pid()
        server.process.kill()
        server.wait()
        seconds_until(lambda: not _runs(engine))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_ready_is_never_said_before_a_token_could_be_made() -> None:
    """Asked all the time from the first moment on: after the first yes, a token comes at the first try."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server("builtin", "--port", str(port))
    answers: list[tuple[int, dict[str, Any]]] = []
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            deadline = time.monotonic() + 60
            while not answers or answers[-1][0] != 200:
                assert time.monotonic() < deadline, server.log
                try:
                    answer = http.get("/health/ready")
                except httpx.TransportError:
                    time.sleep(0.01)
                    continue
                answers.append((answer.status_code, answer.json()))
                if answer.status_code == 503:
                    too_early = http.post(CHAT, json=chat_body(max_tokens=1)).status_code
                    assert too_early in (200, 503)
            first = http.post(CHAT, json=chat_body(max_tokens=1))
        assert first.status_code == 200
        assert first.json()["usage"]["completion_tokens"] == 1
        assert len(answers) > 1, "it answers while it loads"
        assert all(body["reason"] for status, body in answers if status == 503)
    finally:
        server.end()


@pytest.mark.slow
def test_the_last_line_of_the_start_is_the_url() -> None:
    with serving("builtin", *simulated()) as server:
        assert server.lines[-1].startswith("headrace: serving builtin at http://127.0.0.1:")


@pytest.mark.slow
def test_many_starts_side_by_side() -> None:
    """Free ports for all of them, and nothing shared."""
    urls: list[str] = []

    def start() -> None:
        with serving("builtin", *simulated()) as server:
            assert server.post(CHAT, chat_body(max_tokens=1)).status_code == 200
            urls.append(server.url)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(urls)) == 2
