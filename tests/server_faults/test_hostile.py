"""Clients that are broken, hostile or many: each gets a clear end, and the others are served as before."""

from __future__ import annotations

import json
import resource
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.contract.process import Server, seconds_until, serving, simulated
from tests.server_faults.sockets import (
    CHAT,
    chat_body,
    connected,
    events,
    read_all,
    read_until,
    request_bytes,
    status_of,
)

MB = 1 << 20


@contextmanager
def others_are_served(server: Server, limit_s: float = 2.0) -> Iterator[None]:
    """While the block runs, short requests of somebody else are answered, none of them late."""
    slowest, problems, is_over = 0.0, [], threading.Event()

    def ask() -> None:
        nonlocal slowest
        with httpx.Client(base_url=server.url, timeout=20) as http:
            while True:
                begin = time.monotonic()
                answer = http.post(CHAT, json=chat_body(max_tokens=2))
                slowest = max(slowest, time.monotonic() - begin)
                if answer.status_code != 200:
                    problems.append(answer.text)
                if is_over.wait(0.02):
                    return

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        is_over.set()
        asking.join()
    assert not problems
    assert slowest < limit_s


def answer_to(server: Server, data: bytes) -> bytes:
    """What comes back for some bytes; "" where the connection is just closed."""
    with connected(server) as sock:
        sock.sendall(data)
        try:
            return sock.recv(65536)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 64 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\nhello",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET /health\r\n HTTP/1.1\r\nx: " + b"y" * 100 + b"\r\n\r\n",
        b"GET /%00%ff%fe HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET http://[::1/x HTTP/1.1\r\nhost: h\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=range(11),
)
def test_what_is_no_http(server: Server, data: bytes) -> None:
    answer = answer_to(server, data)
    assert not answer or 400 <= status_of(answer) < 500
    assert server.get("/health/ready").status_code == 200


def test_a_chunked_body_is_a_body(server: Server) -> None:
    body = json.dumps(chat_body(max_tokens=2)).encode()
    answer = httpx.post(server.url + CHAT, content=iter([body[:7], body[7:]]), timeout=20)
    assert answer.json()["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_fifty_megabytes(server: Server, chunked: bool) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"messages": [{"role": "user", "content": "'
        for _ in range(50):
            yield b"x" * MB
        yield b'"}]}'

    content = body() if chunked else b"".join(body())
    with others_are_served(server):
        try:
            answer = httpx.post(server.url + CHAT, content=content, timeout=30)
        except httpx.WriteError:
            assert chunked, "a client that says how much comes is always told why it is refused"
            return
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert "16777216" in answer.json()["error"]["message"]


def test_a_large_body_within_the_limit(server: Server) -> None:
    body = chat_body(metadata={"x": "y" * (15 * MB)}, max_tokens=2)
    with others_are_served(server):
        answer = server.post(CHAT, body)
    assert answer.json()["usage"]["completion_tokens"] == 2


def test_a_prompt_of_a_million_tokens(server: Server) -> None:
    with others_are_served(server):
        text = server.post(CHAT, {"messages": [{"role": "user", "content": "ab " * 1_000_000}]})
        ids = server.post("/v1/completions", {"prompt": [100] * 1_000_000})
        many = server.post("/v1/completions", {"prompt": ["hello"] * 200_000})
    assert (text.status_code, text.json()["error"]["code"]) == (400, "prompt_too_long")
    assert (ids.status_code, ids.json()["error"]["code"]) == (400, "prompt_too_long")
    assert 400 <= many.status_code < 500, many.text


def test_invalid_utf8_in_the_head(server: Server) -> None:
    head = b"GET /v1/models/\xff\xfe HTTP/1.1\r\nhost: h\r\nx-request-id: \xff\xfe\r\nauthorization: \xe2\x28\r\n\r\n"
    answer = answer_to(server, head)
    assert not answer or 400 <= status_of(answer) < 500


def test_a_head_without_an_end(server: Server) -> None:
    with connected(server) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n")
        answer = b""
        try:
            for number in range(3000):
                sock.sendall(f"x-{number}: {'y' * 100}\r\n".encode())
            answer = sock.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert not answer or status_of(answer) == 431


def test_a_thousand_connections_at_once(server: Server) -> None:
    """All open at the same time, all answered."""
    _allow_files(3000)
    before = server.num_descriptors()
    request = request_bytes(chat_body(max_tokens=1))
    answers: dict[int, bytes] = {}
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        socks = [stack.enter_context(connected(server)) for _ in range(1000)]
        seconds_until(lambda: server.num_descriptors() >= 1000)
        for sock in socks:
            sock.sendall(request)
            selector.register(sock, selectors.EVENT_READ)
        deadline = time.monotonic() + 60
        while len(answers) < 1000:
            assert time.monotonic() < deadline, f"only {len(answers)} are answered"
            for key, _ in selector.select(1.0):
                assert isinstance(key.fileobj, socket.socket)
                answers[key.fd] = key.fileobj.recv(65536)
                selector.unregister(key.fileobj)
    statuses = sorted({status_of(answer) for answer in answers.values()})
    assert statuses in ([200], [200, 429])
    assert sum(status_of(answer) == 200 for answer in answers.values()) >= 900
    seconds_until(lambda: server.num_descriptors() <= before + 5)


def test_slow_loris_costs_nobody_anything(server: Server) -> None:
    """Two hundred heads and bodies that come a byte at a time; the fast part: others do not notice."""
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(server)) for _ in range(200)]
        for place, sock in enumerate(slow):
            sock.sendall(b"POST /v1" if place % 2 else request_bytes(b'{"', length=1000))
        with others_are_served(server):
            for _ in range(5):
                for sock in slow:
                    sock.sendall(b"a")
                time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["nothing", "head", "body"])
def test_slow_loris_is_shown_the_door(server: Server, stage: str) -> None:
    """10 s for a head, 30 s and a little for a body."""
    limit_s = 45 if stage == "body" else 15
    begin = time.monotonic()
    with connected(server, limit_s) as sock:
        sock.sendall({"nothing": b"", "head": b"POST /v1", "body": request_bytes(b'{"', length=1000)}[stage])
        answer = read_all(sock) if stage == "nothing" else _while_dripping(sock, limit_s)
    assert time.monotonic() - begin < limit_s
    assert not answer or status_of(answer) == 408


def _while_dripping(sock: socket.socket, limit_s: float) -> bytes:
    """Send a byte a quarter of a second until something comes back."""
    sock.settimeout(0.25)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            sock.sendall(b"a")
            return sock.recv(65536)
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            return b""
    raise AssertionError("it still listens")


@pytest.mark.slow
def test_a_slow_reader_slows_nobody_and_misses_nothing() -> None:
    """A client that takes nothing while more is made than sockets hold; afterwards it gets all of it."""
    with serving("builtin", *simulated()) as server, connected(server, 60) as slow:
        slow.sendall(request_bytes(chat_body(max_tokens=7000, n=6, stream=True, return_token_ids=True)))
        with others_are_served(server):
            # The answers are made whether they are read or not.
            seconds_until(lambda: server.get("/load").json()["num_running"] >= 6)
            seconds_until(lambda: not server.state()["engine"]["running"], 20)
        assert server.state()["server"]["num_active"] == 1, "everything fits into the sockets"
        data = read_until(slow, b"[DONE]").decode()
    chunks = [event for event in events(data) if event != "[DONE]"]
    ids = [i for chunk in chunks for choice in chunk["choices"] for i in choice.get("token_ids") or ()]
    assert len(ids) == 6 * 7000


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"this user may open {hard} files; {wanted} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
