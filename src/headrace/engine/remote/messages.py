"""What goes over the connection, in msgpack.

To the child: the EngineSpec alone, then Submit, Cancel, Call and Stop. From it: Ready, then Outputs (one per step),
Stats and Reply, at last LastWords.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import msgspec

from headrace.engine.outputs import EngineOutput, FinishReason, Timing, TokenLogprobs
from headrace.engine.remote.errors_on_wire import ErrorReport, rebuilt, report
from headrace.engine.remote.spec import EngineInfo, EngineStats, Load
from headrace.engine.request import Request
from headrace.engine.sampling_params import SamplingParams


class SentRequest(msgspec.Struct, array_like=True):
    """A request on its way. `age_s` in place of the arrival: clocks of two processes need not agree."""

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    seed: int
    eos_token_ids: frozenset[int]
    max_total_tokens: int
    age_s: float
    cache_salt: str | None
    queue_timeout_s: float | None
    priority: int
    output_token_ids: list[int]


class Submit(msgspec.Struct, array_like=True, tag=1):
    """Requests that are accepted all or none."""

    requests: list[SentRequest]


class Cancel(msgspec.Struct, array_like=True, tag=2):
    """End a request."""

    request_id: str


class Call(msgspec.Struct, array_like=True, tag=3):
    """Run something on the engine's thread; the Reply has the same number."""

    number: int
    name: str
    arguments: dict[str, Any]


class Stop(msgspec.Struct, array_like=True, tag=4):
    """End what is live as cancelled, and the process."""


class Ready(msgspec.Struct, array_like=True, tag=5):
    """The engine is assembled."""

    info: EngineInfo


class SentOutput(msgspec.Struct, array_like=True):
    """An output that has more to it than tokens."""

    request_id: str
    new_token_ids: tuple[int, ...]
    new_logprobs: tuple[TokenLogprobs, ...]
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None
    finish_reason: FinishReason | None
    stop_reason: int | None
    error: ErrorReport | None
    num_cached_tokens: int
    timing: Timing


class Outputs(msgspec.Struct, array_like=True, tag=6):
    """The outputs of a step.

    Attributes:
        plain: (request id, new tokens, cached tokens) of those that have nothing else.
        others: come after `plain`: a request's terminal output is among them, and it is its last.
    """

    load: Load
    plain: list[tuple[str, tuple[int, ...], int]]
    others: list[SentOutput]


class Stats(msgspec.Struct, array_like=True, tag=7):
    """How the engine is; sent every half second, whatever its thread does."""

    stats: EngineStats


class Reply(msgspec.Struct, array_like=True, tag=8):
    """What came of a Call."""

    number: int
    result: dict[str, Any]
    error: ErrorReport | None


class LastWords(msgspec.Struct, array_like=True, tag=9):
    """Nothing comes after it. `error` is why the process ends; None when it was told to."""

    error: ErrorReport | None


ToChild = Submit | Cancel | Call | Stop
FromChild = Ready | Outputs | Stats | Reply | LastWords


def _plain(value: object) -> Any:
    """What msgspec does not know: the read-only mapping of `logit_bias`."""
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent")


encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
to_child_decoder = msgspec.msgpack.Decoder(ToChild)
from_child_decoder = msgspec.msgpack.Decoder(FromChild)


def sent_request(request: Request, now_s: float) -> SentRequest:
    """A request that was not run yet, as it is sent."""
    return SentRequest(
        request.request_id,
        list(request.prompt_token_ids),
        request.params,
        request.seed,
        request.eos_token_ids,
        request.max_total_tokens,
        now_s - request.arrival_s,
        request.cache_salt,
        request.queue_timeout_s,
        request.priority,
        request.output_token_ids,
    )


def received_request(sent: SentRequest, now_s: float) -> Request:
    """The request, by this process's clock."""
    return Request(
        sent.request_id,
        sent.prompt_token_ids,
        sent.params,
        sent.seed,
        sent.eos_token_ids,
        sent.max_total_tokens,
        now_s - sent.age_s,
        sent.cache_salt,
        sent.queue_timeout_s,
        sent.priority,
        sent.output_token_ids,
    )


def sent_output(output: EngineOutput) -> SentOutput:
    """An output as it is sent."""
    error = None if output.error is None else report(output.error)
    return SentOutput(*output[:6], error, *output[7:])


def received_output(sent: SentOutput) -> EngineOutput:
    """The output."""
    return EngineOutput(
        sent.request_id,
        sent.new_token_ids,
        sent.new_logprobs,
        sent.prompt_logprobs,
        sent.finish_reason,
        sent.stop_reason,
        None if sent.error is None else rebuilt(sent.error),
        sent.num_cached_tokens,
        sent.timing,
    )
