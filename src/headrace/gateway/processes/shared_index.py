"""The index of prefixes of a process that has others beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.gateway.prefix_index import PrefixIndex


class SharedIndex(PrefixIndex):
    """Tells of what is new in it.

    Attributes: tell: given a replica and the hashes that it was not known to hold, after each request that has such.
    """

    tell: Callable[[int, Sequence[int]], None] | None = None

    def record(self, hashes: Sequence[int], replica: int) -> None:
        """The replica was sent this prefix."""
        if self.tell is not None:
            young, first = self._generations[replica].young, len(hashes)
            while first and hashes[first - 1] not in young:  # they are chained: what is known comes first
                first -= 1
            if first < len(hashes):
                self.tell(replica, hashes[first:])
        super().record(hashes, replica)

    def heard(self, hashes: Sequence[int], replica: int) -> None:
        """Another process sent this prefix to the replica."""
        super().record(hashes, replica)
