"""Prefill first: begun prompts are finished, then decodes, then waiting requests."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.engine.request import Request
from headrace.engine.scheduler.fifo import Fifo


class PrefillFirst(Fifo):
    """Shortens the time to first token of a prompt that was cut, at the price of the decodes' pace."""

    def order(self, running: Sequence[Request]) -> Sequence[Request]:
        """Requests with more than one token to compute first; arrival order within each kind."""
        return sorted(running, key=lambda request: request.num_unscheduled_tokens <= 1)
