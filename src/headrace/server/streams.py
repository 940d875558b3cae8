"""How many answers a key has under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.errors import TooManyStreams


class StreamLimit:
    """Counts the answers under way by key; for one thread.

    Attributes:
        max_per_key: most of them at a time for one key; None is unbounded.
    """

    def __init__(self, max_per_key: int | None) -> None:
        """Start with none under way."""
        self.max_per_key = max_per_key
        self._open: Counter[str] = Counter()

    @contextmanager
    def hold(self, key_id: str) -> Iterator[None]:
        """Count an answer while the block runs; raises TooManyStreams in place of running it."""
        self.acquire(key_id)
        try:
            yield
        finally:
            self.release(key_id)

    def acquire(self, key_id: str) -> None:
        """Count one more; each must be released once. Raises TooManyStreams."""
        if self.max_per_key is not None and self._open[key_id] >= self.max_per_key:
            raise TooManyStreams(
                f"this key has {self._open[key_id]} answers under way, as many as it may "
                f"(max_streams_per_key={self.max_per_key}): wait for one to end"
            ).with_hint(f"at most {self.max_per_key} at a time")
        self._open[key_id] += 1

    def release(self, key_id: str) -> None:
        """Count one less; a key without any is forgotten, so that the table stays as small as what is under way."""
        assert self._open[key_id] > 0, f"{key_id} has nothing to release"
        self._open[key_id] -= 1
        if not self._open[key_id]:
            del self._open[key_id]

    def num_open(self, key_id: str | None = None) -> int:
        """Answers under way, of one key or in all."""
        return sum(self._open.values()) if key_id is None else self._open.get(key_id, 0)
