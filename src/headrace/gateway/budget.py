"""How much a gateway may ask for twice: retries that pile onto a fleet in trouble make the trouble worse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from headrace.gateway.health.window import OutcomeWindow


class RetryBudget:
    """A share of the requests of the last ten seconds, and a few whatever their number (as in Finagle and Envoy).

    Args:
        ratio: retries per request. least_per_s: retries per second that are always allowed.

    Attributes: request: to be called with the time of every request that comes.
    """

    def __init__(self, ratio: float = 0.2, least_per_s: float = 10.0) -> None:
        """Full."""
        self._ratio = ratio
        self._least_per_s = least_per_s
        self._window = OutcomeWindow()  # successes: requests, failures: retries
        self._seconds = self._window.bucket_s * self._window.num_buckets
        self.request: Callable[[float], None] = partial(self._window.record, True)

    def take(self, now_s: float) -> bool:
        """Whether one may be sent again now; counts it if so."""
        requests, retries = self._window.counts(now_s)
        allowed = retries < self._ratio * requests + self._least_per_s * self._seconds
        if allowed:
            self._window.record(False, now_s)
        return allowed
