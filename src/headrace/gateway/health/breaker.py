"""A circuit breaker: a replica that fails gets no requests for a while, then one to try it with.

::

                  threshold failures in a row, or half of a busy window
      ┌────────┐ ────────────────────────────────────────────────────► ┌──────┐
      │ closed │                                                       │ open │
      └────────┘ ◄──── it succeeded ──── ┌───────────┐ ◄── recovery_s ─ └──────┘
                                         │ half open │ ─ it failed ────────► open, for longer
                                         └───────────┘ one request at a time

Where nothing but connections broke (refused, reset), a health check that succeeds says that the trouble may be over:
it is half open after `early_recovery_s` then. A replica that answers its checks and fails or stalls requests waits in
full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from headrace.gateway.health.window import OutcomeWindow

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a breaker opens and closes.

    Attributes:
        failure_threshold: failures in a row that open it. min_requests, failure_ratio: or this share (0..1) of at
            least so many outcomes of the last ten seconds.
        recovery_s: how long it stays open. max_recovery_s: it doubles with every failed try, up to this.
        early_recovery_s: how long when connections broke and health checks succeed; doubles likewise.
    """

    failure_threshold: int = 3
    min_requests: int = 20
    failure_ratio: float = 0.5
    recovery_s: float = 30.0
    max_recovery_s: float = 240.0
    early_recovery_s: float = 1.0


class Breaker:
    """Of one replica. Times are the caller's clock, in seconds.

    Args:
        changed: called whenever it opens or closes.
    """

    def __init__(self, settings: BreakerSettings, changed: Callable[[], None] = lambda: None) -> None:
        """Closed."""
        self._settings = settings
        self._changed = changed
        self._window = OutcomeWindow()
        self._num_in_a_row = 0
        self._opened_s: float | None = None
        self._recovery_s = settings.recovery_s
        self._early_s = settings.early_recovery_s
        self._is_invited = False
        self._only_connections = True  # of the failures since the last success
        self._trial_until_s: float | None = None
        self.closed_s: float | None = None
        """When it closed again after it had been open; None when it never was."""

    def state(self, now_s: float) -> BreakerState:
        """Where it stands."""
        if self._opened_s is None:
            return "closed"
        return "half_open" if self._is_invited or now_s >= self._opened_s + self._recovery_s else "open"

    def allows(self, now_s: float) -> bool:
        """Whether a request may be sent now; half open, while none is under way."""
        state = self.state(now_s)
        return state == "closed" or (state == "half_open" and not self._is_trying(now_s))

    def sent(self, now_s: float) -> None:
        """A request was sent: half open, it is the one to try with."""
        if self._opened_s is not None and self.state(now_s) == "half_open":
            # Bounded: a trial whose outcome never comes (its client left) must not keep the replica out for good.
            self._trial_until_s = now_s + self._settings.recovery_s

    def reopens_in_s(self, now_s: float) -> float:
        """Seconds until it lets a request through; 0 when it does now."""
        if self._opened_s is None or self._is_invited:
            return 0.0
        return max(self._opened_s + self._recovery_s - now_s, 0.0)

    def seen_well(self, now_s: float) -> None:
        """A health check succeeded: where connections were all that broke, a request may try it now."""
        if self._opened_s is not None and self._only_connections and now_s >= self._opened_s + self._early_s:
            self._is_invited = True

    def record(self, success: bool, now_s: float, is_connection: bool = False) -> bool:
        """Count an outcome; returns whether that opened the breaker.

        Args:
            is_connection: it failed because its connection could not be made, or broke.
        """
        if success and self._opened_s is None:  # what nearly all are
            self._num_in_a_row, self._only_connections = 0, True
            self._window.record(True, now_s)
            return False
        state = self.state(now_s)
        if state == "open":  # of a request that was sent before
            self._only_connections = self._only_connections and (success or is_connection)
            return False
        self._only_connections = success or (self._only_connections and is_connection)
        if state == "half_open":
            self._trial_until_s = None
            if success:
                self.close(now_s)
                return False
            self._recovery_s = min(self._recovery_s * 2, self._settings.max_recovery_s)
            self._early_s = min(self._early_s * 2, self._recovery_s)
            self._opened_s, self._is_invited = now_s, False
            return True
        self._window.record(success, now_s)
        self._num_in_a_row = 0 if success else self._num_in_a_row + 1
        if success or not self._is_failing(now_s):
            return False
        self.open(now_s)
        return True

    def open(self, now_s: float) -> None:
        """Send it nothing for a while."""
        self._opened_s, self._is_invited = now_s, False
        self._recovery_s, self._early_s = self._settings.recovery_s, self._settings.early_recovery_s
        self._changed()

    def close(self, now_s: float) -> None:
        """Trust it again: what happened before is forgotten."""
        was_open = self._opened_s is not None
        self._opened_s = self._trial_until_s = None
        self._num_in_a_row = 0
        self._is_invited, self._only_connections = False, True
        self._window.clear()
        if was_open:
            self.closed_s = now_s
            self._changed()

    def _is_trying(self, now_s: float) -> bool:
        return self._trial_until_s is not None and now_s < self._trial_until_s

    def _is_failing(self, now_s: float) -> bool:
        if self._num_in_a_row >= self._settings.failure_threshold:
            return True
        successes, failures = self._window.counts(now_s)
        total = successes + failures
        return total >= self._settings.min_requests and failures >= self._settings.failure_ratio * total
