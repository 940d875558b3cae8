"""What is known of a request when it has ended; its log line and its metrics are made from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A request that has ended, whichever way.

    Attributes:
        request_id: as its client saw it. endpoint: the route's pattern, such as "/v1/chat/completions".
        model: the name that the client gave. identity: whose key or token.
        status: HTTP status; 499 where the client left before there was one.
        finish_reasons: of each answer (n of them); empty where none began.
        error_code: stable code of the error that ended it.
        num_prompt_tokens, num_cached_tokens, num_output_tokens: of all its answers together.
        queued_s, prefill_s, ttft_s: of its first answer, as engine.outputs.Timing has them; None: it never got there.
        e2e_s: from its first byte until its last.
    """

    request_id: str
    endpoint: str
    model: str
    identity: str
    status: int
    e2e_s: float
    finish_reasons: tuple[str, ...] = ()
    error_code: str | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    queued_s: float | None = None
    prefill_s: float | None = None
    ttft_s: float | None = None

    @property
    def decode_s(self) -> float | None:
        """From the first token until the end."""
        return None if self.ttft_s is None else max(self.e2e_s - self.ttft_s, 0.0)

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first: (E2E − TTFT) / (n − 1), n of one answer; None with fewer than two."""
        per_answer = self.num_output_tokens / max(len(self.finish_reasons), 1)
        return None if self.decode_s is None or per_answer <= 1 else self.decode_s / (per_answer - 1)
