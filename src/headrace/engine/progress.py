"""A progress bar with tokens per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

_WIDTH = 30
_PERIOD_S = 0.1


class ProgressBar:
    """Redraws one line at most ten times a second; draws nothing without a stream.

    Args:
        total: requests. stream: where to draw. clock: seconds, monotonic.
    """

    def __init__(self, total: int, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock."""
        self._total = total
        self._stream = stream
        self._clock = clock
        self._begin = clock()
        self._drawn = float("-inf")
        self._done = 0
        self._tokens = 0

    def advance(self, requests: int, tokens: int) -> None:
        """So many more requests have ended, with so many generated tokens."""
        self._done += requests
        self._tokens += tokens
        if self._stream is not None and self._clock() - self._drawn >= _PERIOD_S:
            self._draw(self._stream)

    def _draw(self, stream: TextIO) -> None:
        self._drawn = self._clock()
        filled = _WIDTH * self._done // self._total if self._total else _WIDTH
        rate = self._tokens / max(self._drawn - self._begin, 1e-9)
        stream.write(f"\r[{'#' * filled}{'.' * (_WIDTH - filled)}] {self._done}/{self._total}  {rate:,.0f} tokens/s ")
        stream.flush()

    def __enter__(self) -> ProgressBar:
        """The bar."""
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the last state and end the line."""
        if self._stream is not None:
            self._draw(self._stream)
            self._stream.write("\n")
