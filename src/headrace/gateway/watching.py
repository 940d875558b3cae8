"""Exchanges whose replicas are silent, or said to be down by their health checks."""

from __future__ import annotations

from headrace.gateway.exchange import Exchange


def watch(exchange: Exchange, now_s: float) -> None:
    """Look for attempts that have been silent for too long."""
    for attempt in list(exchange.attempts):
        limit_s = attempt.exceeded_s(now_s, exchange.features)
        if limit_s is None:
            continue
        if attempt.last_s is not None:
            reason = f"it was silent for more than {limit_s:.2f} s in the middle"
            exchange.attempt_failed(attempt, reason, "stalled")
        elif attempt.is_continuation:
            exchange.attempt_failed(attempt, f"nothing came for {limit_s:.2f} s", "stalled")
        elif not attempt.is_blamed:
            exchange.hedge(attempt, f"nothing came for {limit_s:.2f} s", now_s)


def replica_is_down(exchange: Exchange, name: str, reason: str) -> None:
    """Its health probe failed: who waits for it waits in vain."""
    for attempt in [attempt for attempt in exchange.attempts if attempt.replica.name == name]:
        attempt.is_blamed = True  # the probe has said it; many requests at once must not say it again
        exchange.attempt_failed(attempt, reason)
