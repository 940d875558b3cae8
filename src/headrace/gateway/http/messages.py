"""A request as a client sent it, and the heads that go out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

import msgspec

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


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request, whole.

    Attributes:
        target: path and query. headers: all of them. fields: the first of each name. client: address of the peer.
        is_tls: whether it came over TLS.
    """

    method: bytes
    target: bytes
    headers: Headers
    fields: Mapping[bytes, bytes]
    body: bytes
    client: str
    is_tls: bool = False

    @property
    def path(self) -> bytes:
        """Without the query."""
        return self.target.partition(b"?")[0]

    def header(self, name: bytes) -> bytes:
        """The first of that name; empty when there is none."""
        return self.fields.get(name, b"")


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def response_head(status: int, lines: bytes, framing: bytes, keep_alive: bool, body: bytes = b"") -> bytes:
    """Status line and headers of an answer, and what is to be sent with them.

    Args:
        framing: its content-length or transfer-encoding line.
    """
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status
    end = b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n"
    return b"".join((line, lines, framing, end, body))


def request_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], num_bytes: int) -> bytes:
    """Request line and headers, with the length of the body."""
    return b"%b %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n" % (method, target, lines_of(headers), num_bytes)


def fields_of(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The first of each name."""
    return dict(headers[::-1])


def end_to_end(headers: Headers, fields: Mapping[bytes, bytes], without: frozenset[bytes] = HOP_BY_HOP) -> bytes:
    """The lines without those of one connection, those that `connection` names included.

    Args:
        fields: the first of each name. without: HOP_BY_HOP, and what else is to be left out.
    """
    if b"connection" in fields:
        without = without.union(*(_named(value) for name, value in headers if name == b"connection"))
    return b"".join([b"%b: %b\r\n" % header for header in headers if header[0] not in without])


def _named(connection: bytes) -> set[bytes]:
    lower = connection.lower()
    return set() if lower in _USUAL else {token.strip() for token in lower.split(b",")}
