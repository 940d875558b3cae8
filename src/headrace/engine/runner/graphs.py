"""Which captured graph a decode runs on, and which is captured next. What a graph is, is passed in.

::

    sizes     1  2  4  8  16  24 … max_num_seqs
    a step of 11 rows runs on the graph of 16, five rows of it padding; while that is not there, without a graph

Graphs are captured one at a time while the engine has nothing to do (`EngineCore.prepare`), those that were missed most
first: never on the way of a request.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

_log = logging.getLogger(__name__)


class Graph(Protocol):
    """What was recorded of a function."""

    def replay(self) -> None:
        """Do the same once more, on what the same tensors hold by now."""
        ...


GraphFactory = Callable[[Callable[[], None]], Graph]
"""Runs a function and records it. Raises what the device raises; then nothing was recorded."""


def graph_sizes(max_rows: int) -> list[int]:
    """1, 2, 4, then every 8, and the largest batch there is."""
    return sorted({size for size in (1, 2, 4, *range(8, max_rows + 1, 8), max_rows) if size <= max_rows})


class DecodeGraphs:
    """The graphs of one model.

    Args:
        sizes: ascending. factory: captures. step: of so many rows, on the persistent buffers.
        host_values: of a batch of so many rows: every value of the host that its kernels depend on; None when it
            cannot be captured. It is part of a graph's key: where it changes, another graph is captured.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        factory: GraphFactory,
        step: Callable[[int], None],
        host_values: Callable[[int], Hashable],
    ) -> None:
        """Nothing is captured yet."""
        self._sizes = list(sizes)
        self._factory = factory
        self._step = step
        self._host_values = host_values
        self._graphs: dict[tuple[int, Hashable], Graph] = {}
        self._missed: Counter[int] = Counter()
        self._refused: set[int] = set()

    @property
    def num_captured(self) -> int:
        """How many there are."""
        return len(self._graphs)

    def find(self, num_rows: int) -> tuple[int, Graph] | None:
        """The size and graph for so many rows: the least that fits; None while it is not captured."""
        at = bisect_left(self._sizes, num_rows)
        if at == len(self._sizes):
            return None
        size = self._sizes[at]
        graph = self._graphs.get((size, self._host_values(size)))
        if graph is None:
            self._missed[size] += 1
            return None
        return size, graph

    def capture_one(self) -> bool:
        """Capture the graph that is wanted most; whether there was one to capture. Nothing may be under way.

        What cannot be captured is not tried again; steps of that size run without.
        """
        missing = [size for size in self._sizes if size not in self._refused and not self._has(size)]
        if not missing:
            return False
        size = max(missing, key=lambda size: (self._missed[size], -size))
        key = size, self._host_values(size)
        if key[1] is None:
            self._refused.update(self._sizes)
            return False
        try:
            self._graphs[key] = self._factory(lambda: self._step(size))
        except Exception as error:
            # Larger ones take more of everything.
            self._refused.update(other for other in self._sizes if other >= size)
            _log.warning(
                "no graph for decodes of %d rows and more, they run without: %s: %s", size, type(error).__name__, error
            )
        return True

    def _has(self, size: int) -> bool:
        return (size, self._host_values(size)) in self._graphs

    def clear(self) -> None:
        """Drop them all, and the memory that they hold."""
        self._graphs.clear()
        self._missed.clear()
