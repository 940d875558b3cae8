"""What a caller of the Python interface gets back."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.engine.outputs import FinishReason, Timing, TokenLogprobs
from headrace.errors import HeadraceError


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One completion of a prompt.

    Attributes:
        index: 0 … n - 1.
        token_ids: generated, the stop token included; cut where a stop string was complete.
        text: of them, without stop strings and special tokens; empty without a tokenizer.
        finish_reason: "stop", "length", "cancelled" or "error".
        stop_reason: the stop string or stop token id that ended it; None for an end-of-sequence id or the length.
        logprobs: one per token, when asked for.
    """

    index: int
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    stop_reason: int | str | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """A request that has ended.

    Attributes:
        request_id: of the request. prompt_token_ids: what was completed.
        outputs: n completions, in order; what there is of them when it failed or was cancelled.
        num_cached_tokens: prompt tokens that came from the prefix cache.
        prompt_logprobs: None for the first prompt token, then one each; when asked for.
        error: why it failed or was cancelled; None when it did not.
        timing: of the completion that ended last.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...]
    num_cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    error: HeadraceError | None = None
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True, slots=True)
class StreamDelta:
    """What came since the last delta of a completion; `finish_reason` is set on its last one."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
