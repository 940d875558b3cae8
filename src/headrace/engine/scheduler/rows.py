"""From a request to the row of the plan that computes some of its tokens."""

from __future__ import annotations

from headrace.engine.plan import PlannedRow, SamplingRow
from headrace.engine.request import Request


def planned_row(request: Request, num_tokens: int) -> PlannedRow:
    """The next `num_tokens` tokens of a running request; samples when they are the last known ones."""
    assert request.blocks is not None
    start = request.num_computed_tokens
    stop = start + num_tokens
    targets: tuple[int, ...] = ()
    if request.num_missing_prompt_logprobs > 0:
        targets = tuple(request.prompt_token_ids[start + 1 : stop + 1])
    return PlannedRow(
        request.request_id,
        request.token_ids[start:stop],
        start,
        request.blocks.tables,
        _sampling_row(request) if stop == request.num_tokens else None,
        targets,
        request.params.prompt_logprobs or 0,
    )


def _sampling_row(request: Request) -> SamplingRow:
    params = request.params
    banned: tuple[int, ...] = ()
    if len(request.output_token_ids) < params.min_tokens:
        eos = () if params.ignore_eos else tuple(request.eos_token_ids)
        banned = (*eos, *params.stop_token_ids)
    return SamplingRow(
        params, request.seed, request.num_tokens, request.prompt_token_ids, request.output_token_ids, banned
    )
