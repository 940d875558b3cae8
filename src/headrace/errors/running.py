"""How accepted requests end before their time."""

from __future__ import annotations

from headrace.errors.base import HeadraceError


class RequestCancelled(HeadraceError):
    """The caller cancelled the request."""

    code = "request_cancelled"
    http_status = 499


class RequestFailed(HeadraceError):
    """The request was accepted, but failed alone while running."""

    code = "request_failed"


class StepFailed(RequestFailed):
    """The model raised on this request's tokens, also when they were run alone."""

    code = "step_failed"


class NonFiniteLogits(RequestFailed):
    """The model gave NaN or infinity in this request's logits."""

    code = "non_finite_logits"


class GuideFailed(RequestFailed):
    """The guide leaves no token that may be chosen, or its state grew past the limits."""

    code = "guide_failed"
    http_status = 400


class OutOfMemory(RequestFailed):
    """The step of this request alone did not fit the memory."""

    code = "out_of_memory"
    http_status = 503


class QueueFull(HeadraceError):
    """The bounded queue is full, or what is in it takes longer than a request may wait."""

    code = "queue_full"
    http_status = 429

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        """Say how full, and when there should be room."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueTimeout(HeadraceError):
    """The request waited longer for its turn than the limit that it came with."""

    code = "queue_timeout"
    http_status = 503
