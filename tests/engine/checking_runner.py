"""A runner that keeps a fake KV cache and checks, on every step, that each row would read its own prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.engine.cache.groups import CacheGroup
from headrace.engine.cache.kv_cache import NO_BLOCK
from headrace.engine.last_sampled import LastSampled
from headrace.engine.plan import PlannedRow, RowResult, Runner, StepPlan, StepResult
from headrace.engine.request import Request
from headrace.errors import NonFiniteLogits

POISON = object()
"""What a NaN leaves in a slot."""


class InjectedError(RuntimeError):
    """What a step raises when a test asks for it."""


class WrongPlan(BaseException):
    """The plan is wrong. Not an Exception, so that the engine does not take it for a request's own failure."""


class CheckingRunner:
    """Stands before another runner.

    The fake cache holds, in the slot of position p, a hash of the salt and of the tokens 0 … p. Sharing, eviction,
    windows, preemption or retries that go wrong in any way make a row see another hash than its own.

    Attributes:
        kv: by (group, slot), a prefix hash or POISON.
        nan: ids of requests whose rows come out as NaN. broken: ids whose presence in a batch makes the step raise.
        step_error: raised by the next step, once. failed_alone: ids of those that were alone in it.
        max_rows: a step of more rows runs out of memory.
        before_step: called with the plan before anything is computed.
        collect_error: raised by the next `collect`, once.
    """

    def __init__(
        self, inner: Runner, requests: dict[str, Request], groups: Sequence[CacheGroup], block_size: int
    ) -> None:
        self.inner = inner
        self.kv: dict[tuple[int, int], object] = {}
        self.nan: set[str] = set()
        self.broken: set[str] = set()
        self.step_error: Exception | None = None
        self.failed_alone: set[str] = set()
        self.max_rows: int | None = None
        self.before_step: Callable[[StepPlan], None] = lambda plan: None
        self.collect_error: Exception | None = None
        self._last = LastSampled()
        self._is_ahead = False
        self._requests = requests
        self._groups = groups
        self._block_size = block_size
        self._hashes: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        return self.inner.vocab_size

    def execute(self, plan: StepPlan) -> StepResult:
        self.before_step(plan)
        self._zero(plan)
        try:
            self._check(plan)
        except AssertionError as error:
            raise WrongPlan(f"{error}\n{plan}") from error
        self._write(plan)
        self._raise_if_asked(plan)
        result = self.inner.execute(plan)
        return StepResult(tuple(self._with_nan(outcome) for outcome in result.rows))

    def launch(self, plan: StepPlan) -> StepResult:
        self._is_ahead = True
        result = self.execute(self._last.known(plan))
        self._last.note(result)
        return result

    def collect(self, handle: StepResult) -> StepResult:
        if self.collect_error is not None:
            error, self.collect_error = self.collect_error, None
            raise error
        return handle

    def close(self) -> None:
        self.inner.close()

    def _zero(self, plan: StepPlan) -> None:
        for g, blocks in enumerate(plan.blocks_to_zero):
            for block in blocks:
                for slot in range(block * self._block_size, (block + 1) * self._block_size):
                    self.kv.pop((g, slot), None)

    def _check(self, plan: StepPlan) -> None:
        self._check_order(plan)
        written: set[tuple[int, int]] = set()
        for row in plan.rows:
            self._check_row(row)
            slots = [(g, slot) for g, slot, _ in self._new_slots(row)]
            assert written.isdisjoint(slots), f"{row.request_id} writes slots that another row writes"
            written.update(slots)

    @staticmethod
    def _check_order(plan: StepPlan) -> None:
        lengths = [len(row.token_ids) for row in plan.rows]
        assert all(lengths), "a row without tokens"
        first_chunk = next((i for i, n in enumerate(lengths) if n > 1), len(lengths))
        assert all(n > 1 for n in lengths[first_chunk:]), "single-token rows come first"
        assert len({row.request_id for row in plan.rows}) == len(plan.rows), "two rows of one request"

    def _check_row(self, row: PlannedRow) -> None:
        request = self._requests[row.request_id]
        stop = row.start + len(row.token_ids)
        hashes = self._prefix_hashes(row)
        if request.finish_reason is None:  # else it is a row too much: what it writes is nobody's
            num_tokens = max(request.num_tokens, stop) if self._is_ahead else request.num_tokens
            assert stop <= num_tokens
            assert list(row.token_ids) == [*request.token_ids[row.start :], *row.token_ids[-1:]][: len(row.token_ids)]
            assert (row.sampling is not None) == (stop == num_tokens)
        for g, group in enumerate(self._groups):
            table = row.block_tables[g]
            assert len(table) * self._block_size >= stop, "the table does not cover the step"
            # Every slot of a block in sight may be read and masked; NaN survives the mask.
            first = group.first_visible(row.start)
            for position in range(first // self._block_size * self._block_size, len(table) * self._block_size):
                block = table[position // self._block_size]
                if first <= position < stop:
                    assert block != NO_BLOCK, f"position {position} of {row.request_id} is in sight and given back"
                if row.start <= position < stop:
                    continue  # is written before it is read
                found = self.kv.get((g, self._slot(table, position)))
                if found is POISON and self._is_ahead and row.request_id in self.nan | self.broken:
                    continue  # its own, of the step before: nobody knew when this one was planned
                assert found is not POISON, f"{row.request_id} reads NaN that another request left"
                if first <= position < row.start:
                    assert found == hashes[position], f"{row.request_id} sees a wrong token at {position}, group {g}"

    def _slot(self, table: Sequence[int], position: int) -> int:
        return table[position // self._block_size] * self._block_size + position % self._block_size

    def _prefix_hashes(self, row: PlannedRow) -> list[int]:
        """Of the request's tokens before the row, and of the row's."""
        request = self._requests[row.request_id]
        hashes = self._hashes.setdefault(request.request_id, [])
        tokens = [*request.token_ids[: row.start], *row.token_ids]
        del hashes[row.start :]
        for token in tokens[len(hashes) :]:
            hashes.append(hash((hashes[-1] if hashes else request.cache_salt, token)))
        return hashes

    def _new_slots(self, row: PlannedRow) -> list[tuple[int, int, int]]:
        """(group, slot, position) of everything that the row writes."""
        positions = range(row.start, row.start + len(row.token_ids))
        return [(g, self._slot(table, p), p) for g, table in enumerate(row.block_tables) for p in positions]

    def _write(self, plan: StepPlan) -> None:
        for row in plan.rows:
            hashes = self._prefix_hashes(row)
            sick = row.request_id in self.nan or row.request_id in self.broken
            for g, slot, position in self._new_slots(row):
                self.kv[g, slot] = POISON if sick else hashes[position]

    def _raise_if_asked(self, plan: StepPlan) -> None:
        if self.step_error is not None:
            error, self.step_error = self.step_error, None
            if len(plan.rows) == 1:
                self.failed_alone.add(plan.rows[0].request_id)
            raise error
        if self.max_rows is not None and len(plan.rows) > self.max_rows:
            raise RuntimeError(f"out of memory with {len(plan.rows)} rows")
        guilty = [row.request_id for row in plan.rows if row.request_id in self.broken]
        if guilty:
            raise InjectedError(f"injected for {guilty}")

    def _with_nan(self, outcome: RowResult) -> RowResult:
        if outcome.request_id not in self.nan:
            return outcome
        return RowResult(outcome.request_id, error=NonFiniteLogits("injected"))
