"""All inputs at once: `generate_batch(model, inputs)`, for callers of transformers' `model.generate_batch(inputs)`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from headrace.config import EngineConfig
from headrace.engine.manager import ContinuousBatchingManager, GenerationOutput
from headrace.engine.progress import Progress
from headrace.engine.request import RequestStatus
from headrace.errors import EngineStopped, InvalidRequest


def generate_batch(
    model: Any,
    inputs: Sequence[Sequence[int]],
    generation_config: Any = None,
    config: EngineConfig | None = None,
    progress_bar: bool = False,
    **options: Any,
) -> dict[str, GenerationOutput]:
    """Complete all inputs and return the results by request id, in the order of the inputs.

    An input that cannot be served is FAILED with its error; the others are not disturbed. The model object is usable
    afterwards as before.

    Args:
        model: as for ContinuousBatchingManager. inputs: token ids of each prompt.
        generation_config: a transformers GenerationConfig; by default the model's own.
        config: EngineConfig, or None. progress_bar: show one on standard error.
        options: as for `add_request`, for instance max_new_tokens.
    """
    results: dict[str, GenerationOutput] = {}
    params = options.get("sampling_params")
    with (
        ContinuousBatchingManager(model, generation_config, config) as manager,
        Progress(sys.stderr if progress_bar else None, len(inputs) * len(manager.sequence_ids("", params))) as line,
    ):
        expected = 0
        for i, input_ids in enumerate(inputs):
            names = manager.sequence_ids(f"req_{i}", params)
            results.update(dict.fromkeys(names, GenerationOutput(f"req_{i}")))
            try:
                manager.add_request(input_ids, request_id=f"req_{i}", **options)
                expected += len(names)
            except InvalidRequest as error:
                for name in names:
                    results[name] = GenerationOutput(
                        name, _as_ids(input_ids), error=str(error), status=RequestStatus.FAILED
                    )
                for _ in names:
                    line.update(0, failed=True)
        for _ in range(expected):
            result = manager.get_result()
            if result is None:
                raise EngineStopped("the engine ended before all requests did")
            results[result.request_id] = result
            line.update(len(result.generated_tokens), failed=result.error is not None)
    return results


def _as_ids(given: Any) -> list[int]:
    """What was given as a prompt, where it is a list of anything at all."""
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else []
