"""A step that raises takes down one request at most (law 4)."""

from __future__ import annotations

import logging

from headrace.engine.plan import RowResult, Runner, StepPlan, StepResult
from headrace.errors import HeadraceError, OutOfMemory, RequestFailed, StepFailed

_log = logging.getLogger(__name__)


def execute_in_halves(runner: Runner, plan: StepPlan) -> StepResult:
    """Execute a plan; when it raises, execute its halves, down to the row that raises alone.

    A row of several tokens that does not fit the memory alone is computed in two chunks, down to single tokens.

    A plan can be executed again because a step writes the same keys and values to the same slots each time. Halving
    finds one bad row among B in about 2·log2(B) extra steps, and halves the memory that the step takes.
    """
    try:
        return runner.execute(plan)
    except Exception as error:
        if len(plan.rows) == 1 and is_out_of_memory(error) and len(plan.rows[0].token_ids) > 1:
            return _execute_in_chunks(runner, plan, error)
        if len(plan.rows) == 1:
            request_id = plan.rows[0].request_id
            _log.warning("request %s failed alone: %s: %s", request_id, type(error).__name__, error)
            return StepResult((RowResult(request_id, error=_as_request_error(error)),))
        _log.warning(
            "a step of %d rows and %d tokens raised, its halves are run instead: %s: %s",
            len(plan.rows),
            plan.num_tokens,
            type(error).__name__,
            error,
        )
    half = len(plan.rows) // 2
    # Zeroing comes first and once: the second half must not zero what the first has written.
    first = execute_in_halves(runner, StepPlan(plan.rows[:half], plan.blocks_to_zero))
    second = execute_in_halves(runner, StepPlan(plan.rows[half:]))
    return StepResult(first.rows + second.rows)


def _execute_in_chunks(runner: Runner, plan: StepPlan, error: Exception) -> StepResult:
    """The first half of a row's tokens, then the rest."""
    (row,) = plan.rows
    half = len(row.token_ids) // 2
    _log.warning("request %s: %d tokens do not fit the memory, they are computed in two chunks: %s",
                 row.request_id, len(row.token_ids), error)  # fmt: skip
    head = row._replace(token_ids=row.token_ids[:half], sampling=None, prompt_targets=row.prompt_targets[:half])
    tail = row._replace(
        token_ids=row.token_ids[half:], start=row.start + half, prompt_targets=row.prompt_targets[half:]
    )
    (first,) = execute_in_halves(runner, StepPlan((head,), plan.blocks_to_zero)).rows
    if first.error is not None:
        return StepResult((first,))
    (second,) = execute_in_halves(runner, StepPlan((tail,))).rows
    return StepResult((second._replace(prompt_logprobs=first.prompt_logprobs + second.prompt_logprobs),))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed. torch raises its own class on CUDA, a RuntimeError on the CPU; both say it."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in words or "not enough memory" in words


def _as_request_error(error: Exception) -> HeadraceError:
    if isinstance(error, RequestFailed):
        return error
    message = f"the model's step failed on this request alone: {type(error).__name__}: {error}"
    failure = OutOfMemory(message) if is_out_of_memory(error) else StepFailed(message)
    failure.__cause__ = error
    return failure
