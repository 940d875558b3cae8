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

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_USUAL = frozenset({b"keep-alive", b"close"})


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
    head = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status
    for name, value in headers:
        head += name + b": " + value + b"\r\n"
    return head + framing + (b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n")


def request_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], num_bytes: int) -> bytes:
    """Request line and headers, with the length of the body."""
    head = method + b" " + target + b" HTTP/1.1\r\n"
    for name, value in headers:
        head += name + b": " + value + b"\r\n"
    return head + b"content-length: %d\r\n\r\n" % num_bytes


def end_to_end(headers: Headers, without: frozenset[bytes] = HOP_BY_HOP) -> list[tuple[bytes, bytes]]:
    """Without those of one connection, those that `connection` names included.

    Args:
        without: HOP_BY_HOP, and what else is to be left out.
    """
    for name, value in headers:
        if name == b"connection" and value.lower() not in _USUAL:
            without |= {token.strip().lower() for token in value.split(b",")}
    return [header for header in headers if header[0] not in without]
