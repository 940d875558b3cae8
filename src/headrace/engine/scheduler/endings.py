"""When a request ends, and what is said of it then."""

from __future__ import annotations

from headrace.engine.outputs import EngineOutput, FinishReason, TokenLogprobs
from headrace.engine.request import Request
from headrace.errors import HeadraceError, QueueTimeout


def ending_after(request: Request, token: int) -> tuple[FinishReason, int | None] | None:
    """Reason and stop token, when the token that was just added is the last; else None."""
    params, num_tokens = request.params, len(request.output_token_ids)
    if num_tokens >= params.min_tokens:
        if token in params.stop_token_ids:
            return "stop", token
        if token in request.eos_token_ids and not params.ignore_eos:
            return "stop", None
    return ("length", None) if num_tokens >= request.max_output_tokens else None


def terminal_output(
    request: Request,
    now_s: float,
    reason: FinishReason,
    new_token_ids: tuple[int, ...] = (),
    new_logprobs: tuple[TokenLogprobs, ...] = (),
    stop_reason: int | None = None,
    error: HeadraceError | None = None,
) -> EngineOutput:
    """The last output of a request."""
    prompt_logprobs = None if request.params.prompt_logprobs is None else (None, *request.prompt_logprobs)
    return EngineOutput(
        request.request_id,
        new_token_ids,
        new_logprobs,
        prompt_logprobs,
        reason,
        stop_reason,
        error,
        request.num_cached_tokens,
        request.timing(now_s),
    )


def waited_too_long(request: Request, now_s: float) -> QueueTimeout:
    """The error of a request that was not started within its limit."""
    return QueueTimeout(
        f"request {request.request_id} has waited {now_s - request.arrival_s:.1f} s for its turn, its limit is "
        f"{request.queue_timeout_s:g} s: the engine has more to do than it can; try again later"
    )
