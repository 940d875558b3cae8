"""A step that raises takes down one request at most (law 4)."""

from __future__ import annotations

import logging

from headrace.engine.plan import RowResult, Runner, StepPlan, StepResult
from headrace.errors import HeadraceError, OutOfMemory, RequestFailed, StepFailed

_log = logging.getLogger(__name__)


def execute_in_halves(runner: Runner, plan: StepPlan) -> StepResult:
    """Execute a plan; when it raises, execute its halves, down to the row that raises alone.

    A plan can be executed again because a step writes the same keys and values to the same slots each time. Halving
    finds one bad row among B in about 2·log2(B) extra steps, and halves the memory that the step takes.
    """
    try:
        return runner.execute(plan)
    except Exception as error:
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


def _as_request_error(error: Exception) -> HeadraceError:
    if isinstance(error, RequestFailed):
        return error
    # torch raises its own class on CUDA and a RuntimeError on the CPU; both say it in words.
    words = str(error).lower()
    out_of_memory = isinstance(error, MemoryError) or "out of memory" in words or "not enough memory" in words
    message = f"the model's step failed on this request alone: {type(error).__name__}: {error}"
    failure = OutOfMemory(message) if out_of_memory else StepFailed(message)
    failure.__cause__ = error
    return failure
