"""A stopwatch with a stack: time goes to the innermost part that is open, so that parts never overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any


@dataclass(frozen=True, slots=True)
class Cost:
    """The least that a call has to do: bytes that it reads or writes, and floating point operations."""

    num_bytes: float = 0.0
    operations: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(self.num_bytes + other.num_bytes, self.operations + other.operations)


@dataclass(slots=True)
class Part:
    """What one part of a step took; `limit_s` adds up call by call."""

    seconds: float = 0.0
    calls: int = 0
    cost: Cost = Cost()
    limit_s: float = 0.0


class Stopwatch:
    """Measures one thread.

    Args:
        clock: seconds. limit_s: least seconds that a cost takes on this machine.

    Attributes:
        parts: of the step under way, by name.
        running: nothing is measured while it is False.
    """

    def __init__(self, clock: Callable[[], float], limit_s: Callable[[Cost], float]) -> None:
        """Not running."""
        self.parts: dict[str, Part] = {}
        self.running = False
        self._clock = clock
        self._limit_s = limit_s
        self._open: list[Part] = []
        self._since = 0.0

    def take(self) -> dict[str, Part]:
        """The parts since the last call of this, which are forgotten here."""
        parts, self.parts = self.parts, {}
        return parts

    def charge(self, name: str, seconds: float, cost: Cost | None = None) -> None:
        """Add a part that was measured elsewhere, or what a part costs."""
        part = self.parts.setdefault(name, Part())
        part.seconds += seconds
        if cost is not None:
            part.cost += cost
            part.limit_s += self._limit_s(cost)

    def around(
        self,
        function: Callable[..., Any],
        name: str | Callable[..., str],
        cost: Callable[..., Cost] | None = None,
    ) -> Callable[..., Any]:
        """The same function under this stopwatch; `name` and `cost` may depend on its arguments."""

        @wraps(function, assigned=("__name__", "__doc__"), updated=())
        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self.running:
                return function(*args, **kwargs)
            label = name if isinstance(name, str) else name(*args, **kwargs)
            part = self.parts.setdefault(label, Part())
            part.calls += 1
            if cost is not None:
                work = cost(*args, **kwargs)
                part.cost += work
                part.limit_s += self._limit_s(work)
            self._switch()
            self._open.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._open.pop()

        return timed

    def _switch(self) -> None:
        """Give the time since the last switch to the part that was open."""
        now = self._clock()
        if self._open:
            self._open[-1].seconds += now - self._since
        self._since = now
