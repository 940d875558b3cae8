"""The engine's process killed, stopped, raising: every request gets an end, and the server serves again."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.contract.asks import chat
from tests.contract.process import Server, is_idle, seconds_until, serving, simulated
from tests.remote.faulty_child import CRASH, KILL, KILL_THREAD, ONCE, RAISE
from tests.server_faults.sockets import CHAT, chat_body, connected, events, read_until, request_bytes

COMPLETIONS = "/v1/completions"
READY_NO_S = 5.0


@pytest.fixture
def own() -> Iterator[Server]:
    """A server that may be hurt."""
    with serving("builtin", *simulated(step_s=0.01)) as server:
        yield server


def is_ready(server: Server) -> bool:
    return server.get("/health/ready").status_code == 200


@contextmanager
def streaming(server: Server, path: str = CHAT, **fields: Any) -> Iterator[httpx.Response]:
    """A stream that has begun."""
    body = chat_body(stream=True, **fields)
    with httpx.stream("POST", server.url + path, json=body, timeout=30) as answer:
        assert answer.status_code == 200
        yield answer


def test_killed_in_mid_stream(own: Server) -> None:
    with streaming(own) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(own.engine_pid(), signal.SIGKILL)
        seconds_until(lambda: not is_ready(own), READY_NO_S)
        seen = events("\n".join(lines))
    assert seen[-1]["error"]["code"] == "engine_dead"
    assert seen[-1]["error"]["request_id"] == answer.headers["x-request-id"]
    assert "[DONE]" not in seen
    seconds_until(lambda: is_ready(own))
    assert own.post(CHAT, chat_body(max_tokens=3)).json()["usage"]["completion_tokens"] == 3
    seconds_until(lambda: is_idle(own.state()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chat", "messages", "responses"])
def test_the_official_clients_see_the_end_of_a_stream(own: Server, kind: str) -> None:
    client = openai.OpenAI(base_url=f"{own.url}/v1", api_key="none", max_retries=0, timeout=20)
    claude = anthropic.Anthropic(base_url=own.url, api_key="none", max_retries=0, timeout=20)
    ask: Any = [{"role": "user", "content": "hello"}]
    stream: Any
    if kind == "chat":
        stream = chat(client, ask, max_tokens=3000, stream=True)
    elif kind == "messages":
        stream = claude.messages.create(model="builtin", max_tokens=3000, messages=ask, stream=True)
    else:
        stream = client.responses.create(model="builtin", input="hello", max_output_tokens=3000, stream=True)
    with stream:
        next(iter(stream))
        os.kill(own.engine_pid(), signal.SIGKILL)
        if kind == "responses":
            assert list(stream)[-1].type == "response.failed"
        else:
            with pytest.raises((openai.APIError, anthropic.APIError), match="engine"):
                list(stream)


@pytest.mark.slow
def test_killed_before_the_first_token_is_no_matter() -> None:
    """What has not been answered yet is computed again by the next process."""
    with serving("builtin", *simulated(step_s=1.0)) as server:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(server.post(CHAT, chat_body(max_tokens=1))))
        asking.start()
        seconds_until(lambda: server.get("/load").json()["num_waiting"] == 1)
        os.kill(server.engine_pid(), signal.SIGKILL)
        asking.join(30)
        assert answers[0].status_code == 200
        assert answers[0].json()["usage"]["completion_tokens"] == 1


@pytest.mark.slow
def test_what_is_not_streamed_gets_a_status(own: Server) -> None:
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(own.post(CHAT, chat_body())))
    asking.start()
    seconds_until(lambda: own.get("/load").json()["num_running"] == 1)
    os.kill(own.engine_pid(), signal.SIGKILL)
    asking.join(30)
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "engine_dead")
    assert int(answers[0].headers["retry-after"]) >= 1


@pytest.mark.slow
def test_stopped_and_going_on(own: Server) -> None:
    pid = own.engine_pid()
    with streaming(own, max_tokens=300) as answer:
        lines = answer.iter_lines()
        next(lines)
        begin = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        seconds_until(lambda: not is_ready(own), READY_NO_S)
        assert time.monotonic() - begin < READY_NO_S
        reason = own.get("/health/ready").json()
        assert (reason["engine"], own.get("/health/live").status_code) == ("stalled", 200)
        assert "said nothing" in reason["reason"]
        assert own.get("/metrics").status_code == own.get("/load").status_code == 200
        os.kill(pid, signal.SIGCONT)
        seconds_until(lambda: is_ready(own))
        seen = events("\n".join(lines))
    assert seen[-1] == "[DONE]"
    assert seen[-2]["choices"][0]["finish_reason"] == "length"
    seconds_until(lambda: is_idle(own.state()))


@pytest.mark.slow
def test_who_asks_a_stopped_engine_is_told_so(own: Server) -> None:
    pid = own.engine_pid()
    os.kill(pid, signal.SIGSTOP)
    seconds_until(lambda: not is_ready(own), READY_NO_S)
    assert own.get("/admin/state", timeout=30).status_code == 503
    os.kill(pid, signal.SIGCONT)
    seconds_until(lambda: own.get("/admin/state").status_code == 200)


@pytest.mark.slow
def test_stopped_and_killed(own: Server) -> None:
    pid = own.engine_pid()
    with streaming(own) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(pid, signal.SIGSTOP)
        seconds_until(lambda: not is_ready(own), READY_NO_S)
        os.kill(pid, signal.SIGKILL)
        assert events("\n".join(lines))[-1]["error"]["code"] == "engine_dead"
    seconds_until(lambda: is_ready(own))


@pytest.mark.slow
def test_a_client_leaves_while_the_engine_is_stopped(own: Server) -> None:
    pid = own.engine_pid()
    with connected(own) as sock:
        sock.sendall(request_bytes(chat_body(stream=True)))
        read_until(sock, b"data: ")
        os.kill(pid, signal.SIGSTOP)
    seconds_until(lambda: own.get("/load").json()["engine_state"] == "stalled")
    os.kill(pid, signal.SIGCONT)
    seconds_until(lambda: is_ready(own))
    seconds_until(lambda: is_idle(own.state()))


@pytest.mark.slow
def test_a_request_does_not_wait_for_a_stopped_engine_beyond_its_limit() -> None:
    with serving("builtin", *simulated(), "--queue-timeout-s", "1") as server:
        os.kill(server.engine_pid(), signal.SIGSTOP)
        seconds_until(lambda: not is_ready(server), READY_NO_S)
        begin = time.monotonic()
        answer = server.post(CHAT, chat_body(max_tokens=1))
        assert (answer.status_code, answer.json()["error"]["code"]) in [
            (503, "queue_timeout"),
            (503, "engine_unresponsive"),
        ]
        assert time.monotonic() - begin < 5


@pytest.mark.slow
def test_killed_again_and_again_ends_the_server_with_its_own_code(tmp_path: Path) -> None:
    with faulty_server(tmp_path) as server:
        for _ in range(10):
            if server.process.poll() is not None:
                break
            with suppress(httpx.TransportError):  # the last one may meet the server's end
                server.post(COMPLETIONS, {"prompt": [KILL, 0, 1], "max_tokens": 5})
        assert server.wait(20) == 5


@contextmanager
def faulty_server(folder: Path | None = None) -> Iterator[Server]:
    program = [sys.executable, "-m", "tests.server_faults.faulty_server"]
    root = str(Path(__file__).parents[2])
    flags = simulated(step_s=0.005, vocab_size=5000)
    with serving("builtin", *flags, command=program, environment={"PYTHONPATH": root}, folder=folder) as server:
        yield server


@pytest.mark.slow
def test_a_step_that_raises_ends_its_request_alone(tmp_path: Path) -> None:
    with faulty_server(tmp_path) as server:
        pid = server.engine_pid()
        with streaming(server, max_tokens=200) as other:
            lines = other.iter_lines()
            next(lines)
            before = server.post(COMPLETIONS, {"prompt": [RAISE, 0, 1], "max_tokens": 5})
            assert (before.status_code, before.json()["error"]["code"]) == (500, "step_failed")
            body = {"prompt": [RAISE, 3, 1], "max_tokens": 50, "stream": True, "return_token_ids": True}
            with httpx.stream("POST", server.url + COMPLETIONS, json=body, timeout=20) as answer:
                seen = events(answer.read().decode())
            assert (answer.status_code, seen[-1]["error"]["code"]) == (200, "step_failed")
            assert len(seen) >= 2
            assert events("\n".join(lines))[-1] == "[DONE]"
        assert server.engine_pid() == pid
        seconds_until(lambda: is_idle(server.state()))
        assert server.get("/admin/integrity").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("fault", [KILL_THREAD, CRASH, KILL])
def test_an_engine_that_dies_of_a_step_is_started_again(tmp_path: Path, fault: int) -> None:
    with faulty_server(tmp_path) as server:
        pid = server.engine_pid()
        # So late that a token is out by then; without one the request would run again, and get its answer.
        answer = server.post(COMPLETIONS, {"prompt": [fault + ONCE, 15, 1], "max_tokens": 20})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")
        seconds_until(lambda: is_ready(server))
        assert server.engine_pid() != pid
        again = server.post(COMPLETIONS, {"prompt": [fault + ONCE, 3, 1], "max_tokens": 5})
        assert again.json()["usage"]["completion_tokens"] == 5
