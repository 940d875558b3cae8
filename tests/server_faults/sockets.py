"""Clients that know no manners: requests as bytes on a socket."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.contract.process import Server

CHAT = "/v1/chat/completions"


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3000, **fields}


def request_bytes(body: Any, path: str = CHAT, *, length: int | None = None) -> bytes:
    """A request as it goes over a socket; `body` may be bytes, and `length` a lie."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length or len(data)}\r\n\r\n".encode() + data


@contextmanager
def connected(server: Server, timeout_s: float = 20.0) -> Iterator[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout_s) as sock:
        yield sock


def hang_up(sock: socket.socket) -> None:
    """Leave without a word: the other side gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_until(sock: socket.socket, words: bytes) -> bytes:
    """What came up to some words, and what came with them."""
    data = bytearray()
    while words not in data[-70_000:]:
        more = sock.recv(65536)
        assert more, f"the connection was closed after {data[-500:]!r}"
        data += more
    return bytes(data)


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side closes."""
    data = b""
    while more := sock.recv(1 << 20):
        data += more
    return data


def status_of(data: bytes) -> int:
    return int(data.split(b" ", 2)[1])


def events(data: str) -> list[Any]:
    """The JSON of each event of a stream, and "[DONE]"."""
    payloads = [line.removeprefix("data: ") for line in data.split("\n") if line.startswith("data: ")]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]
