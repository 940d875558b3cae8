"""Surgery, and the proof of the whole model after it; a model that does not stand it runs as it is."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import torch
from torch import nn

from headrace.errors import ConfigError, ModelNotSupported
from headrace.model.kernels.library import Kernels, load_library, open_kernels
from headrace.model.paged_model import PagedModel
from headrace.model.proof import Expectation, expect, prove
from headrace.model.surgery.operate import operate, operate_on
from headrace.model.surgery.operation import Operation
from headrace.model.surgery.report import SurgeryReport
from headrace.model.torch_threads import one_torch_thread

_log = logging.getLogger(__name__)

_CPU_DTYPES = (torch.float32, torch.bfloat16)

_WORTH_THREADS_BYTES = 256 << 20


def operate_and_prove(
    paged: PagedModel, *, surgery: bool = True, quantization: str | None = None
) -> tuple[float, SurgeryReport | None]:
    """Rewrite a wired model for the device's kernels and prove it; where there are none, only prove it.

    Returns:
        The largest relative difference of the logits, and what was done; None where nothing was.

    Raises:
        ModelNotSupported: the model is off also by itself, or off by the quantization that was asked for.
        ConfigError: quantization without the CPU kernels.
    """
    try:
        with nullcontext() if _is_worth_threads(paged.loaded.model) else one_torch_thread():
            expectation = expect(paged)
        with one_torch_thread():
            return _operate_and_prove(paged, expectation, surgery, quantization)
    finally:
        if paged.loaded.reserve is not None:
            paged.loaded.reserve.close()


def _is_worth_threads(model: nn.Module) -> bool:
    """Whether reading its weights takes longer than waking a thread for each, which may take milliseconds."""
    return sum(parameter.nbytes for parameter in model.parameters()) >= _WORTH_THREADS_BYTES


def _operate_and_prove(
    paged: PagedModel, expectation: Expectation, surgery: bool, quantization: str | None
) -> tuple[float, SurgeryReport | None]:
    on_triton = surgery and _runs_on_triton(paged)
    kernels = _cpu_kernels(paged) if surgery and not on_triton else None
    if kernels is None and quantization is not None:
        raise ConfigError(f"quantization={quantization!r} needs the CPU kernels, which do not run this model here")
    if kernels is None and not on_triton:
        return prove(paged, expectation), None
    operation: Operation | None = None
    try:
        if kernels is None:
            operation = _operate_on_triton(paged)
        else:
            operation = operate(paged, kernels, quantization=quantization)
        return prove(paged, expectation, quantized=quantization is not None), operation.report
    except Exception as error:  # whatever it was, the model itself may be fine
        if quantization is not None:
            raise
        if operation is not None:
            operation.undo()
        difference = prove(paged, expectation)
        _log.warning("%s runs without headrace's kernels: %s", type(paged.loaded.model).__name__, error)
        report = SurgeryReport()
        report.dropped["model", type(paged.loaded.model).__name__, _reason(error)] += 1
        return difference, report


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ModelNotSupported) else f"{type(error).__name__}: {error}"


def _runs_on_triton(paged: PagedModel) -> bool:
    """Whether its attention is Triton's; then the rest can be, on whatever device that is."""
    return paged.context.implementation.name == "triton"


def _operate_on_triton(paged: PagedModel) -> Operation:
    from headrace.model.surgery.triton_kit import MergedTerms  # triton may be missing elsewhere

    return operate_on(paged, MergedTerms(paged.loaded.dtype))


def _cpu_kernels(paged: PagedModel) -> Kernels | None:
    """Those of the attention, so that one pool of threads serves both; None where they do not run this model."""
    if paged.loaded.device.type != "cpu" or paged.loaded.dtype not in _CPU_DTYPES or load_library() is None:
        return None
    kernels = getattr(paged.context.implementation, "kernels", None)
    return kernels if isinstance(kernels, Kernels) else open_kernels()
