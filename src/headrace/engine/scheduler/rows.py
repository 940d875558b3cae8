"""From a request to the row of the plan that computes some of its tokens, and to its description for people."""

from __future__ import annotations

from typing import Any

from headrace.engine.plan import PENDING, PlannedRow, RowGuide, SamplingRow
from headrace.engine.request import Request


def planned_row(request: Request, num_tokens: int) -> PlannedRow:
    """The next `num_tokens` tokens of a running request; samples when they are the last known ones."""
    assert request.blocks is not None
    start = request.num_begun_tokens
    stop = start + num_tokens
    num_known = len(request.token_ids)
    targets: tuple[int, ...] = ()
    if request.num_missing_prompt_logprobs > 0:
        targets = tuple(request.prompt_token_ids[start + 1 : stop + 1])
    return PlannedRow(
        request.request_id,
        request.token_ids[start:stop] if start < num_known else (PENDING,),
        start,
        request.blocks.tables,
        _sampling_row(request, stop) if stop == num_known + request.num_pending_tokens else None,
        targets,
        request.params.prompt_logprobs or 0,
    )


def _sampling_row(request: Request, position: int) -> SamplingRow:
    params = request.params
    banned: tuple[int, ...] = ()
    if position - len(request.prompt_token_ids) < params.min_tokens:
        eos = () if params.ignore_eos else tuple(request.eos_token_ids)
        banned = (*eos, *params.stop_token_ids)
    guide = None
    if request.guide is not None:
        eos = tuple(request.eos_token_ids)
        guide = RowGuide(request.guide, (*(() if params.ignore_eos else eos), *params.stop_token_ids), eos)
    return SamplingRow(
        params, request.seed, position, request.prompt_token_ids, request.output_token_ids, banned, guide
    )


def describe(request: Request) -> dict[str, Any]:
    """Where a request stands, as plain data."""
    return {
        "request_id": request.request_id,
        "status": request.status.name,
        "num_prompt_tokens": request.num_prompt_tokens,
        "num_output_tokens": len(request.output_token_ids),
        "num_computed_tokens": request.num_computed_tokens,
        "num_cached_tokens": request.num_cached_tokens,
        "num_preemptions": request.num_preemptions,
        "max_output_tokens": request.max_output_tokens,
        "block_tables": [] if request.blocks is None else [list(table) for table in request.blocks.tables],
    }
