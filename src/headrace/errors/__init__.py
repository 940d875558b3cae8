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
    ├── UnsupportedEncoding       415  a body that was compressed
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

from headrace.errors.asked import (
    EmptyPrompt,
    GuideTimeout,
    InvalidBody,
    InvalidField,
    InvalidGuide,
    InvalidParameter,
    InvalidRequest,
    PromptTooLong,
    TokenOutOfRange,
    UnknownField,
    UnsupportedField,
)
from headrace.errors.base import (
    HeadraceError,
)
from headrace.errors.engines import (
    EngineDead,
    EngineStopped,
    EngineUnresponsive,
    NoReplica,
    ReplicaFailed,
    ServerDraining,
)
from headrace.errors.http import (
    BodyTooLarge,
    BodyTooSlow,
    Forbidden,
    MethodNotAllowed,
    ModelNotFound,
    RouteNotFound,
    TooManyStreams,
    Unauthorized,
    UnsupportedEncoding,
)
from headrace.errors.running import (
    GuideFailed,
    NonFiniteLogits,
    OutOfMemory,
    QueueFull,
    QueueTimeout,
    RequestCancelled,
    RequestFailed,
    StepFailed,
)
from headrace.errors.setup import (
    AddressNotAvailable,
    BenchmarkFailed,
    ConfigError,
    ModelNotSupported,
)

__all__ = [
    "AddressNotAvailable",
    "BenchmarkFailed",
    "BodyTooLarge",
    "BodyTooSlow",
    "ConfigError",
    "EmptyPrompt",
    "EngineDead",
    "EngineStopped",
    "EngineUnresponsive",
    "Forbidden",
    "GuideFailed",
    "GuideTimeout",
    "HeadraceError",
    "InvalidBody",
    "InvalidField",
    "InvalidGuide",
    "InvalidParameter",
    "InvalidRequest",
    "MethodNotAllowed",
    "ModelNotFound",
    "ModelNotSupported",
    "NoReplica",
    "NonFiniteLogits",
    "OutOfMemory",
    "PromptTooLong",
    "QueueFull",
    "QueueTimeout",
    "ReplicaFailed",
    "RequestCancelled",
    "RequestFailed",
    "RouteNotFound",
    "ServerDraining",
    "StepFailed",
    "TokenOutOfRange",
    "TooManyStreams",
    "Unauthorized",
    "UnknownField",
    "UnsupportedEncoding",
    "UnsupportedField",
]
