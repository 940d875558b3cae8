"""Bodies that come in many small pieces."""

from __future__ import annotations

_MANY = 4096
_TOGETHER = 256 * 1024


def join_small(pieces: list[bytes]) -> None:
    """Where there are more than 4,096, join neighbours up to 256 KiB: a list of tiny ones takes ten times their size.

    A byte is copied once or twice, however often this is called.
    """
    if len(pieces) <= _MANY:
        return
    joined: list[bytes] = []
    group: list[bytes] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece)
        if size >= _TOGETHER:
            joined.append(b"".join(group))
            group, size = [], 0
    pieces[:] = [*joined, b"".join(group)] if group else joined
