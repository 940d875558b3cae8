"""Which requests are live, and that each of them ends exactly once (law 1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from headrace.engine.outputs import EngineOutput, FinishReason
from headrace.engine.remote.link import Sink
from headrace.engine.request import Request
from headrace.errors import HeadraceError, InvalidRequest

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Entry:
    """One live request.

    Attributes:
        has_tokens: whether its sink got any: then it cannot be run again unnoticed.
        is_cancelled: whether its end was asked for.
        num_submissions: engine processes that it was given to.
    """

    request: Request
    sink: Sink
    has_tokens: bool = False
    is_cancelled: bool = False
    num_submissions: int = 0


class Ledger:
    """The live requests of one engine, on one loop.

    Args:
        clock: seconds, that of the requests' arrival.
        cancel: ends a request in the engine; called for those whose sink raises.
        on_empty: called whenever the last live request has ended.
    """

    def __init__(
        self, clock: Callable[[], float], cancel: Callable[[str], None], on_empty: Callable[[], None] = lambda: None
    ) -> None:
        """Nothing is live."""
        self._clock = clock
        self._cancel = cancel
        self._on_empty = on_empty
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        """How many are live."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Those that are live now, in order of arrival; the ledger may change meanwhile."""
        return iter(list(self._entries.values()))

    def get(self, request_id: str) -> Entry | None:
        """The entry of a live request."""
        return self._entries.get(request_id)

    def add(self, requests: Sequence[Request], sink: Sink) -> list[Entry]:
        """Enter requests, all or none. InvalidRequest: an id is taken."""
        names = [request.request_id for request in requests]
        taken = next((name for name in names if name in self._entries), None)
        if taken is not None or len(set(names)) < len(names):
            raise InvalidRequest(f"request id {taken or names[0]!r} is taken by a request that is still live")
        added = [Entry(request, sink) for request in requests]
        self._entries.update(zip(names, added, strict=True))
        return added

    def remove(self, requests: Sequence[Request]) -> None:
        """Take back an `add`, because the requests were refused."""
        for request in requests:
            self._entries.pop(request.request_id, None)

    def deliver(self, output: EngineOutput) -> None:
        """Hand an output to its sink; one for a request that is not live is dropped."""
        entry = self._entries.get(output.request_id)
        if entry is None:
            return
        if output.finish_reason is not None:
            del self._entries[output.request_id]
        elif output.new_token_ids:
            entry.has_tokens = True
        try:
            entry.sink(output)
        except Exception:
            _log.exception("the sink of request %s raised; the request is cancelled", output.request_id)
            entry.sink = _ignore
            if output.finish_reason is None:
                self._cancel(output.request_id)
        if not self._entries:
            self._on_empty()

    def end(self, entry: Entry, reason: FinishReason, error: HeadraceError) -> None:
        """End a request from this side; harmless when it has ended."""
        request = entry.request
        if self._entries.get(request.request_id) is entry:
            timing = request.timing(self._clock())
            self.deliver(EngineOutput(request.request_id, finish_reason=reason, error=error, timing=timing))

    def end_all(self, reason: FinishReason, error: HeadraceError) -> None:
        """End all that are live."""
        for entry in self:
            self.end(entry, reason, error)


def _ignore(output: EngineOutput) -> None:
    """The sink of a request whose own sink raised."""
