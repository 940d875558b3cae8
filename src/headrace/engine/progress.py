"""One line on the terminal that says how far a batch is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

_REDRAW_S = 0.1


class Progress:
    """Requests done and tokens per second, drawn over itself on a stream such as stderr."""

    def __init__(
        self, stream: TextIO | None, total: int | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start counting.

        Args:
            stream: where to draw; None draws nothing.
            total: requests in all, if known.
            clock: seconds, monotonic.
        """
        self._stream = stream
        self._total = total
        self._clock = clock
        self._start_s = clock()
        self._drawn_s = float("-inf")
        self._num_done = self._num_failed = self._num_tokens = 0

    def update(self, num_tokens: int, *, failed: bool) -> None:
        """One more request is done, with so many generated tokens."""
        self._num_done += 1
        self._num_failed += failed
        self._num_tokens += num_tokens
        if self._stream is not None and self._clock() - self._drawn_s >= _REDRAW_S:
            self._draw(self._stream)

    def close(self) -> None:
        """Draw the last state, and go to the next line."""
        if self._stream is not None:
            self._draw(self._stream)
            self._stream.write("\n")
            self._stream.flush()

    def __enter__(self) -> Progress:
        """The line itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the last state."""
        self.close()

    def __str__(self) -> str:
        """The line, without the control characters."""
        elapsed_s = self._clock() - self._start_s
        total = "" if self._total is None else f"/{self._total}"
        failed = f", {self._num_failed} failed" if self._num_failed else ""
        rate = self._num_tokens / elapsed_s if elapsed_s > 0 else 0.0
        minutes, seconds = divmod(int(elapsed_s), 60)
        return f"{self._num_done}{total} requests{failed}, {rate:,.0f} tokens/s, {minutes}:{seconds:02d}"

    def _draw(self, stream: TextIO) -> None:
        stream.write(f"\r\x1b[K{self}")
        stream.flush()
        self._drawn_s = self._clock()
