"""The whole surgery of one model."""

from __future__ import annotations

import time
from functools import partial

import torch

from headrace.model.kernels.library import Kernels
from headrace.model.paged_model import PagedModel
from headrace.model.surgery.lease import Terms
from headrace.model.surgery.linear import LinearForward, random_like, read_linear
from headrace.model.surgery.operation import Operation, shared_parameters
from headrace.model.surgery.watch import Stage, Watched

DTYPES = (torch.float32, torch.bfloat16)
"""Models of these run on the kernels."""


def operate(paged: PagedModel, kernels: Kernels, *, quantization: str | None = None) -> Operation:
    """Replace what can be replaced; `paged.close` takes it back, and so does `undo`.

    Args:
        paged: wired, without a cache. kernels: what the model is to run on.
        quantization: "int8": weights per output channel, activations per row. The weights of a model that was handed
            in are kept beside them then, because int8 has no way back.
    """
    start = time.perf_counter()
    loaded = paged.loaded
    kept = shared_parameters(loaded.model)
    if quantization == "int8" and not loaded.owned:
        kept = frozenset(map(id, loaded.model.parameters()))
    operation = Operation(Terms(kernels, torch.int8 if quantization == "int8" else loaded.dtype, kept))
    paged.on_close(lambda: operation.undo(give_back=not loaded.owned))
    stage = Stage(paged)
    with torch.no_grad(), stage.open():
        watched = stage.watch()
        _replace_linears(operation, watched)
    operation.report.seconds = time.perf_counter() - start
    return operation


def _replace_linears(operation: Operation, watched: Watched) -> None:
    for module, call in watched.calls.items():
        part = read_linear(module, call) if operation.is_free(module) else None
        if part is not None:
            forward = partial(LinearForward, part=part)
            operation.replace("linear", module, forward, partial(module, random_like(call.args[0])))
