"""An answer that another server began, brought to where it stood there."""

from __future__ import annotations

from collections.abc import Set

from headrace.engine.outputs import EngineOutput
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import InvalidRequest
from headrace.protocol.call import BegunChoice
from headrace.server.choice import Choice


def resume(choice: Choice, begun: BegunChoice, params: SamplingParams, eos_token_ids: Set[int]) -> None:
    """Let a choice take the tokens that were given out, one by one, as it would have taken them from the engine.

    Raises:
        InvalidRequest: it ended within them at a stop string, and nothing says so.
    """
    ids, reason = begun.token_ids, begun.finish_reason
    last: int | None = None
    if reason is not None and ids and (reason == "length" or _ends_answer(ids[-1], params, eos_token_ids)):
        ids, last = ids[:-1], ids[-1]
    for place, token in enumerate(ids, 1):
        choice.take(EngineOutput(choice.request_id, (token,)))
        if choice.finish_reason is not None and (reason is None or place < len(ids) or last is not None):
            raise InvalidRequest(
                f"choice {choice.index} cannot go on: with token {place} of {len(begun.token_ids)} it is complete, "
                f"by the stop string {choice.stop_reason!r}"
            )
    if reason is not None:
        stop = last if reason == "stop" and last in params.stop_token_ids else None
        new = () if last is None else (last,)
        choice.take(EngineOutput(choice.request_id, new, finish_reason=reason, stop_reason=stop))


def _ends_answer(token: int, params: SamplingParams, eos_token_ids: Set[int]) -> bool:
    return token in params.stop_token_ids or (token in eos_token_ids and not params.ignore_eos)
