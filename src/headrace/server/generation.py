"""A call under way in the engine: takes its outputs, keeps the books, wakes who writes the answer.

::

    EngineLink ─ outputs of a step ─► Generation.take ─► Choice (text, stop strings) ─ pieces ─► respond
                                          └► WaitingLine, metrics                     ▲ woken once a step
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from headrace.engine.outputs import EngineOutput
from headrace.engine.remote import EngineLink
from headrace.errors import HeadraceError, RequestFailed
from headrace.observability.metrics import ServerMetrics
from headrace.server.choice import Choice
from headrace.server.load import engine_room
from headrace.server.overload import WaitingLine

_log = logging.getLogger(__name__)


class Generation:
    """The sequences of one call, from submission to the last one's end. Lives on the event loop.

    It is kept by the engine's link until the last sequence has ended, also when its client has long gone, so the books
    are always right.

    Args:
        engine: where they run. line: admitted them. metrics: count them. clock: seconds, monotonic.
        choices: the sequences. started_s: when the call came.
        immediate: wake for every step; else only at the end.

    Attributes:
        error: why it failed; None when it did not.
        ttft_s: seconds until its first token.
    """

    def __init__(
        self,
        engine: EngineLink,
        line: WaitingLine,
        metrics: ServerMetrics,
        clock: Callable[[], float],
        choices: Sequence[Choice],
        started_s: float,
        *,
        immediate: bool,
    ) -> None:
        """Not submitted yet."""
        self.choices = choices
        self.error: HeadraceError | None = None
        self.ttft_s: float | None = None
        self._engine = engine
        self._line = line
        self._metrics = metrics
        self._clock = clock
        self._by_id = {choice.request_id: choice for choice in choices}
        self._num_live = sum(not choice.is_ended for choice in choices)
        self._started_s = started_s
        self._immediate = immediate
        self._waiter: asyncio.Future[None] | None = None
        self._has_news = False
        self._is_abandoned = False

    @property
    def is_over(self) -> bool:
        """Whether the engine has ended every sequence."""
        return self._num_live == 0

    async def news(self) -> None:
        """Wait for more of any choice, or for the end."""
        if not self._has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._has_news = False

    def take(self, output: EngineOutput) -> None:
        """One output of the engine; the sink of its sequences."""
        choice = self._by_id[output.request_id]
        now_s = self._clock()
        num_new = len(output.new_token_ids)
        if num_new:
            if choice.last_token_s is None:
                self._begin(choice, num_new, now_s)
            else:
                self._metrics.tokens(num_new, now_s - choice.last_token_s)
            choice.last_token_s = now_s
        if not self._is_abandoned:
            self._make_text(choice, output)
        if output.finish_reason is not None:
            self._end(choice, output)
        if self._immediate or self._num_live == 0:
            self._has_news = True
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def abandon(self) -> None:
        """Nobody wants it any more: cancel what runs, in the engine too."""
        self._is_abandoned = True
        for choice in self.choices:
            if not choice.is_ended:
                self._engine.cancel(choice.request_id)

    def withdraw(self) -> None:
        """The engine did not take it: give its places in the line back."""
        for choice in self.choices:
            if not choice.is_ended:
                self._line.end_pending(choice.num_prompt_tokens)

    def _make_text(self, choice: Choice, output: EngineOutput) -> None:
        try:
            if choice.take(output):
                self._engine.cancel(choice.request_id)
        except Exception as error:  # a tokenizer that raises ends its request, and no other
            _log.exception("the text of request %s could not be made", output.request_id)
            self._fail(RequestFailed(f"the text could not be made: {type(error).__name__}: {error}"))

    def _begin(self, choice: Choice, num_new: int, now_s: float) -> None:
        ttft_s = now_s - self._started_s
        if self.ttft_s is None:
            self.ttft_s = ttft_s
        self._metrics.first_token(ttft_s, num_new)
        self._line.start(choice.num_prompt_tokens, engine_room(self._engine), now_s)

    def _end(self, choice: Choice, output: EngineOutput) -> None:
        choice.output = output  # also when its text could not be made
        self._num_live -= 1
        if choice.last_token_s is None:
            self._line.end_pending(choice.num_prompt_tokens)
        else:
            self._line.end_running()
        if output.error is not None and choice.finish_reason not in ("stop", "length"):
            self._fail(output.error)

    def _fail(self, error: HeadraceError) -> None:
        """One choice failed, and the answer is one answer: the others end too."""
        if self.error is None and not self._is_abandoned:
            self.error = error
            self._has_news = True
            self.abandon()
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
