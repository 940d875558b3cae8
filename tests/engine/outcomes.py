"""A handler that takes notes, and insists on exactly one end per request."""

from __future__ import annotations

import threading

from headrace.engine.outputs import EngineOutput


class Outcomes:
    """What came of each request, by id. Its `take` is the handler."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = {}
        self.ended: dict[str, EngineOutput] = {}
        self.problems: list[str] = []
        self._changed = threading.Condition()

    def take(self, output: EngineOutput) -> None:
        with self._changed:
            if output.request_id in self.ended:
                self.problems.append(f"{output.request_id} got an output after its end")
            self.tokens.setdefault(output.request_id, []).extend(output.new_token_ids)
            if output.finished:
                self.ended[output.request_id] = output
            self._changed.notify_all()

    def wait_for(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until so many requests have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ended) >= count, timeout_s), f"{len(self.ended)} of {count}"
        assert not self.problems

    def wait_for_tokens(self, request_id: str, count: int, timeout_s: float = 60.0) -> None:
        """Wait until a request has so many tokens, or has ended."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: len(self.tokens.get(request_id, ())) >= count or request_id in self.ended, timeout_s
            )

    @property
    def reasons(self) -> dict[str, str | None]:
        """Finish reasons by request."""
        return {name: output.finish_reason for name, output in self.ended.items()}
