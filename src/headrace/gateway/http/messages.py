"""A request as a client sent it, and the heads that go out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, in order."""

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"expect",
    }
)  # fmt: skip
"""Headers of one connection; the framing's own among them, because each side frames for itself."""

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Request(NamedTuple):
    """One request, whole.

    Attributes: target: path and query. client: address of the peer. is_tls: whether it came over TLS.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: bytes
    client: str
    is_tls: bool = False

    @property
    def path(self) -> bytes:
        """Without the query."""
        return self.target.partition(b"?")[0]

    def header(self, name: bytes) -> bytes:
        """The first of that name; empty when there is none."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]], framing: bytes, keep_alive: bool) -> bytes:
    """Status line and headers of an answer, `framing` being its content-length or transfer-encoding line."""
    lines = [b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, b"Status"))]
    lines += [b"%b: %b" % header for header in headers]
    lines.append(framing)
    if not keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def request_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], num_bytes: int) -> bytes:
    """Request line and headers, with the length of the body."""
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    lines += [b"%b: %b" % header for header in headers]
    lines.append(b"content-length: %d" % num_bytes)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Without those of one connection, those that `connection` names included."""
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection":
            named |= {token.strip().lower() for token in value.split(b",")}
    return [(name, value) for name, value in headers if name not in HOP_BY_HOP and name not in named]
