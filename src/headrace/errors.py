"""Every error that headrace raises or reports, in one tree.

::

    HeadraceError
    ├── InvalidRequest            400  the request cannot be served as it was asked
    │   ├── InvalidParameter      400  a sampling parameter or argument is out of its range
    │   ├── InvalidBody           400  a body that is no JSON, or no JSON object
    │   ├── InvalidField          400  a field of a body is missing or out of its range, named by its path
    │   ├── UnsupportedField      400  a field of the interface that headrace does not have
    │   ├── UnknownField          400  a field that no interface has, where that is forbidden (strict_fields)
    │   ├── InvalidGuide          400  a schema, regex or grammar that cannot be compiled, in the compiler's words
    │   │   └── GuideTimeout      400  compiling it took too long
    │   ├── EmptyPrompt           400
    │   ├── PromptTooLong         400  longer than the model or than the whole cache
    │   └── TokenOutOfRange       400  a token id that the model does not have
    ├── BodyTooLarge              413  a body over the limit
    ├── BodyTooSlow               408  a body that did not come in time
    ├── RouteNotFound             404  a path that is not served
    ├── MethodNotAllowed          405  a path that is served, by another method
    ├── ModelNotFound             404  a model that is not served here
    ├── Unauthorized              401  no key or token, or one that is not valid
    ├── Forbidden                 403  a valid key or token whose role may not do this
    ├── TooManyStreams            429  the key has as many streams open as it may
    ├── ConfigError               400  a setting is out of its range, or does not fit the machine
    │   └── AddressNotAvailable   400  an address to listen on that is taken, or is none of this machine
    ├── ModelNotSupported         400  a model that cannot run here, with the reason
    ├── RequestCancelled          499  the caller cancelled it
    ├── RequestFailed             500  accepted, but failed alone while running
    │   ├── StepFailed            500  the model raised on this request's tokens
    │   ├── NonFiniteLogits       500  the model gave NaN or infinity for this request
    │   ├── GuideFailed           400  its guide leaves no token to choose, or grew past its limits
    │   └── OutOfMemory           503  the step of this request alone did not fit the memory
    ├── QueueFull                 429  the bounded queue is full
    ├── QueueTimeout              503  waited longer for its turn than the limit
    ├── ServerDraining            503  a server that finishes what it has, and takes nothing new
    ├── EngineStopped             503  submitted to an engine that was stopped
    ├── EngineUnresponsive        503  the engine did not answer in time
    ├── EngineDead                503  the engine died; carries the cause
    ├── NoReplica                 503  no replica of the gateway is able to take a request
    ├── ReplicaFailed             502  the replicas that were asked failed
    └── BenchmarkFailed           500  what a benchmark started or drove did not do its part

A message says what happened, with the numbers, and the value that would work.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Root of the tree. `code` is stable and machine readable, `http_status` is what a server answers.

    Attributes:
        retry_after_s: when the same request may be tried again; None: nothing is known of that.
    """

    code = "internal_error"
    http_status = 500
    retry_after_s: float | None = None


class InvalidRequest(HeadraceError, ValueError):
    """The request cannot be served as it was asked."""

    code = "invalid_request"
    http_status = 400


class InvalidParameter(InvalidRequest):
    """A sampling parameter or argument is out of its range."""

    code = "invalid_parameter"

    def __init__(self, name: str, value: object, allowed: str) -> None:
        """Name the parameter, show the value, and say what is allowed."""
        super().__init__(f"{name}={value!r} is not allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


class InvalidBody(InvalidRequest):
    """A body that is no JSON, or no JSON object."""

    code = "invalid_body"


class InvalidField(InvalidRequest):
    """A field of a body is missing, or its value is not allowed.

    Attributes:
        name: its path, `messages[2].content[0].type`.
        hint: what is allowed.
    """

    code = "invalid_parameter"

    def __init__(self, name: str, shown: str | None, allowed: str) -> None:
        """Name the field, show its value as JSON (None: it is missing), and say what is allowed."""
        missing = f"{name} is missing: {allowed} is needed"
        super().__init__(missing if shown is None else f"{name}={shown} is not allowed: {allowed}")
        self.name = name
        self.hint = allowed


class UnsupportedField(InvalidRequest):
    """A field, or a value of one, that belongs to the interface and that headrace does not have.

    Attributes:
        name: its path. hint: what would work.
    """

    code = "unsupported_field"

    def __init__(self, name: str, shown: str, hint: str) -> None:
        """Name the field, show its value as JSON, and say what would work."""
        super().__init__(f"{name}={shown} is not supported: {hint}")
        self.name = name
        self.hint = hint


class UnknownField(InvalidRequest):
    """A field that no interface has, on a server that takes none of these (strict_fields).

    Attributes:
        name: its path. hint: the nearest name there is.
    """

    code = "unknown_field"

    def __init__(self, name: str, nearest: str | None) -> None:
        """Name the field, and the nearest there is."""
        self.name = name
        self.hint = f"did you mean {nearest}?" if nearest else "docs/api.md lists the fields"
        super().__init__(f"{name} is not a field of this request: {self.hint}")


class BodyTooLarge(HeadraceError):
    """A body over the server's limit; nothing of it was kept."""

    code = "body_too_large"
    http_status = 413


class BodyTooSlow(HeadraceError):
    """A body that did not come in time."""

    code = "body_too_slow"
    http_status = 408


class RouteNotFound(HeadraceError):
    """A path that is not served."""

    code = "not_found"
    http_status = 404


class MethodNotAllowed(HeadraceError):
    """A path that is served, by another method."""

    code = "method_not_allowed"
    http_status = 405


class ModelNotFound(HeadraceError):
    """A model that is not served here."""

    code = "model_not_found"
    http_status = 404


class InvalidGuide(InvalidRequest):
    """A schema, regular expression or grammar that cannot be compiled; the message has the compiler's words."""

    code = "invalid_guide"


class GuideTimeout(InvalidGuide):
    """Compiling a guide took too long."""

    code = "guide_timeout"


class EmptyPrompt(InvalidRequest):
    """A prompt without a token."""

    code = "empty_prompt"


class PromptTooLong(InvalidRequest):
    """A prompt longer than the model or than the whole cache."""

    code = "prompt_too_long"


class TokenOutOfRange(InvalidRequest):
    """A token id that the model does not have."""

    code = "token_out_of_range"


class Unauthorized(HeadraceError):
    """No key or token, or one that is not valid; the message never says which part of it was near."""

    code = "unauthorized"
    http_status = 401


class Forbidden(HeadraceError):
    """A valid key or token whose role may not do this."""

    code = "forbidden"
    http_status = 403


class TooManyStreams(HeadraceError):
    """The key has as many streams open as it may."""

    code = "too_many_streams"
    http_status = 429


class ConfigError(HeadraceError, ValueError):
    """A setting is out of its range, or does not fit the machine."""

    code = "config_error"
    http_status = 400


class AddressNotAvailable(ConfigError):
    """An address to listen on that is taken, or is none of this machine."""

    code = "address_not_available"


class ModelNotSupported(HeadraceError, ValueError):
    """A model that cannot run here, with the reason."""

    code = "model_not_supported"
    http_status = 400


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


class ServerDraining(HeadraceError):
    """A server that finishes what it has, and takes nothing new."""

    code = "server_draining"
    http_status = 503

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        """Say so, and when another server may have taken its place."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineStopped(HeadraceError, RuntimeError):
    """Submitted to an engine that was stopped, or not started yet."""

    code = "engine_stopped"
    http_status = 503
    retry_after_s = 5.0  # about what a restart takes


class EngineUnresponsive(HeadraceError, RuntimeError):
    """The engine runs, but did not answer in time."""

    code = "engine_unresponsive"
    http_status = 503
    retry_after_s = 5.0


class EngineDead(HeadraceError, RuntimeError):
    """The engine's thread or process died; `__cause__` carries the reason."""

    code = "engine_dead"
    http_status = 503
    retry_after_s = 5.0  # about what a restart takes


class NoReplica(HeadraceError):
    """No replica of the gateway is able to take a request."""

    code = "no_replica"
    http_status = 503


class ReplicaFailed(HeadraceError):
    """The replicas that were asked failed, each with its reason."""

    code = "replica_failed"
    http_status = 502


class BenchmarkFailed(HeadraceError):
    """What a benchmark started or drove did not do its part."""

    code = "benchmark_failed"
