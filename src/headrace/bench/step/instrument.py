"""Puts a stopwatch around what a step calls: the kernels' C functions, and what is left to torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from headrace.bench.step.stopwatch import Cost, Stopwatch
from headrace.engine.assembly import Engine
from headrace.model.attention.cpu import CpuAttention
from headrace.model.kernels import library

_ITEM_BYTES = {number: dtype.itemsize for dtype, number in library.DTYPES.items()}

ATTENTION, LINEARS, LOGITS, SAMPLING, PACKING = "attention", "linears", "logits", "sampling", "packing"
NORMS, ROTATION, ACTIVATION, OTHER = "norms", "rotation, cache write", "activation", "other"
SCHEDULE, UPDATE = "schedule", "update"

PARTS = (ATTENTION, LINEARS, NORMS, ROTATION, ACTIVATION, OTHER, LOGITS, SAMPLING, PACKING, SCHEDULE, UPDATE)
"""In the order of the table. OTHER is the model's forward pass less what has a name: embedding, sums, torch, Python."""


@contextmanager
def instrumented(stopwatch: Stopwatch) -> Iterator[None]:
    """Put the stopwatch around the C functions of the kernels; what is made inside runs under it."""
    loaded = (library.load_library(), library.load_library(library.LIBRARY_PATH))  # cached as two objects
    with ExitStack() as stack:
        for compiled in {id(one): one for one in loaded if one is not None}.values():
            for name, (part, cost) in _KERNELS.items():
                _replace(stack, compiled, name, stopwatch.around(getattr(compiled, name), part, cost))
        yield


@contextmanager
def instrumented_engine(stopwatch: Stopwatch, engine: Engine) -> Iterator[None]:
    """Put the stopwatch around what an engine of this process does outside the kernels."""
    import torch

    runner: Any = engine.core.runner
    paged = runner._model
    with ExitStack() as stack:
        _replace(stack, runner, "execute", stopwatch.around(runner.execute, PACKING))
        _replace(stack, paged, "forward", stopwatch.around(paged.forward, OTHER))
        _replace(stack, runner._sampler, "sample", stopwatch.around(runner._sampler.sample, SAMPLING))
        attention = paged.context.implementation
        if not isinstance(attention, CpuAttention):
            _replace(stack, attention, "forward", stopwatch.around(attention.forward, ATTENTION))
        for module in engine.loaded.model.modules():
            if isinstance(module, torch.nn.Linear) and "forward" not in module.__dict__:
                part = LOGITS if module.out_features == paged.vocab_size else LINEARS
                _replace(stack, module, "forward", stopwatch.around(module.forward, part, _torch_linear(module)))
        yield


def _replace(stack: ExitStack, owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Set an attribute until the stack closes."""
    had, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, function)
    stack.callback(lambda: setattr(owner, name, before) if had else delattr(owner, name))


def _torch_linear(module: Any) -> Callable[..., Cost]:
    n, k = module.weight.shape
    item = module.weight.element_size()

    def cost(x: Any) -> Cost:
        m = x.numel() // k
        return Cost((n * k + m * (n + k)) * item, 2.0 * m * n * k)

    return cost


# ---------------------------------------------------------------- costs of csrc/headrace.h's functions
# Arguments are found by their struct or their place there; test_instrument holds them against that file.


def _linear_part(_context: Any, matrix: Any, *_: Any) -> str:
    return LOGITS if matrix._obj.n >= _LOGITS_FROM and not matrix._obj.gated else LINEARS


_LOGITS_FROM = 16_384
"""A product with so many outputs is that of the vocabulary."""


def _linear_cost(
    _context: Any,
    matrix: Any,
    _x: Any,
    _ldx: int,
    x_dtype: int,
    _y: Any,
    _ldy: int,
    y_dtype: int,
    _residual: Any,
    _ldr: int,
    m: int,
    *_: Any,
) -> Cost:
    n, k, weight_bytes = matrix._obj.n, matrix._obj.k, _ITEM_BYTES[matrix._obj.dtype]
    width = n // 2 if matrix._obj.gated else n
    rows = m * (k * _ITEM_BYTES[x_dtype] + width * _ITEM_BYTES[y_dtype])
    return Cost(n * k * weight_bytes + rows, 2.0 * m * n * k)


def _norm_cost(_context: Any, args: Any) -> Cost:
    norm = args._obj
    streams = 4 if norm.residual else 2
    return Cost(streams * norm.m * norm.n * _ITEM_BYTES[norm.dtype])


def _activate_cost(_context: Any, _gate: Any, _ldg: int, up: Any, *rest: int) -> Cost:
    _ldu, _out, _ldo, m, n, dtype, _kind = rest
    return Cost((3 if up else 2) * m * n * _ITEM_BYTES[dtype])


def _rope_cost(_context: Any, args: Any) -> Cost:
    rope = args._obj
    cache = rope.cache and library.CacheStruct.from_address(rope.cache)
    kv = cache.num_kv_heads * (cache.key_dim + cache.value_dim)
    return Cost(2 * rope.num_tokens * (rope.num_heads * cache.key_dim + kv) * _ITEM_BYTES[cache.dtype])


_KERNELS: dict[str, tuple[str | Callable[..., str], Callable[..., Cost] | None]] = {
    "hr_linear": (_linear_part, _linear_cost),
    "hr_attend": (ATTENTION, None),
    "hr_cache_write": (ROTATION, None),
    "hr_rope_and_write": (ROTATION, _rope_cost),
    "hr_norm": (NORMS, _norm_cost),
    "hr_activate": (ACTIVATION, _activate_cost),
    "hr_argmax": (SAMPLING, None),
}
