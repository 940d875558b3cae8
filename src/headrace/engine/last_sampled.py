"""For runners whose samples are on the host when a launch returns: puts known tokens in place of PENDING ones."""

from __future__ import annotations

from headrace.engine.plan import StepPlan, StepResult


class LastSampled:
    """The tokens of the step that was launched last, by request."""

    def __init__(self) -> None:
        """No step was launched."""
        self._tokens: dict[str, int] = {}

    def known(self, plan: StepPlan) -> StepPlan:
        """The plan with every PENDING token known; of a request that got none but an error, token 0 stands for it."""
        if not any(row.is_pending for row in plan.rows):
            return plan
        tokens = self._tokens
        rows = [row.with_token(tokens.get(row.request_id, 0)) if row.is_pending else row for row in plan.rows]
        return StepPlan(tuple(rows), plan.blocks_to_zero)

    def note(self, result: StepResult) -> None:
        """That was the step that was launched last."""
        self._tokens = {row.request_id: row.token_id for row in result.rows if row.token_id is not None}
