"""What the engine core says of a request: deltas while it runs, and exactly one terminal output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from headrace.errors import HeadraceError

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities (natural logarithm, raw model distribution) at one position.

    Attributes:
        token_id: the token that stands there.
        logprob: its log-probability.
        rank: 1 for the most likely token of the vocabulary.
        top: the most likely tokens, as many as were asked for, in descending order.
    """

    token_id: int
    logprob: float
    rank: int
    top: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds since the request arrived, by the engine's clock; None where it never got there.

    Attributes:
        queued_s: until its first token was scheduled.
        prefill_s: from then until the prompt was computed.
        ttft_s: until its first generated token.
        e2e_s: until its terminal output.
    """

    queued_s: float | None = None
    prefill_s: float | None = None
    ttft_s: float | None = None
    e2e_s: float | None = None


class EngineOutput(NamedTuple):
    """New tokens of one request; terminal when `finish_reason` is set.

    Attributes:
        request_id: whose.
        new_token_ids: generated since the last output, stop token included.
        new_logprobs: one per new token when asked for.
        prompt_logprobs: on the terminal output when asked for: None for the first prompt token, then one each.
        finish_reason: None while it runs.
        stop_reason: the token id that ended it; None when an end-of-sequence id of the model or the length did.
        error: set exactly when `finish_reason` is "error" or "cancelled".
        num_cached_tokens: prompt tokens that came from the prefix cache.
        timing: complete on the terminal output.
    """

    request_id: str
    new_token_ids: tuple[int, ...] = ()
    new_logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    error: HeadraceError | None = None
    num_cached_tokens: int = 0
    timing: Timing = Timing()

    @property
    def finished(self) -> bool:
        """Whether this is the terminal output."""
        return self.finish_reason is not None
