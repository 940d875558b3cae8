"""Puts a stopwatch around what a step calls: the kernels' C functions, and what is left to torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from headrace.bench.step.stopwatch import Cost, Stopwatch
from headrace.engine.assembly import Engine
from headrace.model.attention.cpu import CpuAttention
from headrace.model.kernels import library
from headrace.model.kernels.program import ADD, ATTEND, LINEAR, NORM, ROTATE, TAKE
from headrace.model.kernels.structs import CacheStruct, MatrixStruct, NormStruct, OperationStruct, ProgramStruct

_ITEM_BYTES = {number: dtype.itemsize for dtype, number in library.DTYPES.items()}

ATTENTION, LINEARS, LOGITS, SAMPLING, PACKING = "attention", "linears", "logits", "sampling", "packing"
NORMS, ROTATION, ACTIVATION = "norms", "rotation, cache write", "activation"
SUMS, OTHER = "sums, rows taken", "other"
SCHEDULE, UPDATE = "schedule", "update"

PARTS = (ATTENTION, LINEARS, NORMS, ROTATION, ACTIVATION, SUMS, OTHER, LOGITS, SAMPLING, PACKING, SCHEDULE, UPDATE)
"""In the order of the table. OTHER is the model's forward pass less what has a name: embedding, torch, Python."""


@contextmanager
def instrumented(stopwatch: Stopwatch) -> Iterator[None]:
    """Put the stopwatch around the C functions of the kernels; what is made inside runs under it."""
    loaded = (library.load_library(), library.load_library(library.LIBRARY_PATH))  # cached as two objects
    with ExitStack() as stack:
        for compiled in {id(one): one for one in loaded if one is not None}.values():
            for name, (part, cost) in _KERNELS.items():
                _replace(stack, compiled, name, stopwatch.around(getattr(compiled, name), part, cost))
            _replace(stack, compiled, "hr_run", _one_by_one(stopwatch, compiled.hr_run))
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


_LOGITS_FROM = 16_384
"""A product with so many outputs is that of the vocabulary."""


def _linear_part(_context: Any, matrix: Any, *_: Any) -> str:
    return LOGITS if matrix._obj.n >= _LOGITS_FROM and not matrix._obj.gated else LINEARS


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
    return _product(matrix._obj, m, _ITEM_BYTES[x_dtype], _ITEM_BYTES[y_dtype])


def _product(matrix: MatrixStruct, m: int, x_bytes: int, y_bytes: int) -> Cost:
    n, k, weight_bytes = matrix.n, matrix.k, _ITEM_BYTES[matrix.dtype]
    width = n // 2 if matrix.gated else n
    return Cost(n * k * weight_bytes + m * (k * x_bytes + width * y_bytes), 2.0 * m * n * k)


def _norm_cost(_context: Any, args: Any) -> Cost:
    norm = args._obj
    streams = 4 if norm.residual else 2
    return Cost(streams * norm.m * norm.n * _ITEM_BYTES[norm.dtype])


def _activate_cost(_context: Any, _gate: Any, _ldg: int, up: Any, *rest: int) -> Cost:
    _ldu, _out, _ldo, m, n, dtype, _kind = rest
    return Cost((3 if up else 2) * m * n * _ITEM_BYTES[dtype])


def _rope_cost(_context: Any, args: Any) -> Cost:
    cache = CacheStruct.from_address(args._obj.cache)
    width = args._obj.num_heads * cache.key_dim + cache.num_kv_heads * (cache.key_dim + cache.value_dim)
    return Cost(2 * args._obj.num_tokens * width * _ITEM_BYTES[cache.dtype])


_KERNELS: dict[str, tuple[str | Callable[..., str], Callable[..., Cost] | None]] = {
    "hr_linear": (_linear_part, _linear_cost),
    "hr_attend": (ATTENTION, None),
    "hr_cache_write": (ROTATION, None),
    "hr_rope_and_write": (ROTATION, _rope_cost),
    "hr_norm": (NORMS, _norm_cost),
    "hr_activate": (ACTIVATION, _activate_cost),
    "hr_argmax": (SAMPLING, None),
}


_OPERATIONS = {LINEAR: LINEARS, NORM: NORMS, ROTATE: ROTATION, ATTEND: ATTENTION, ADD: SUMS, TAKE: SUMS}


def _one_by_one(stopwatch: Stopwatch, run: Callable[..., int]) -> Callable[..., int]:
    """hr_run, an operation at a time while the stopwatch runs."""
    timed = {part: stopwatch.around(run, part) for part in _OPERATIONS.values()}

    def stepwise(context: Any, program: Any, step: Any, outside: Any, first: int, end: int) -> int:
        if not stopwatch.running:
            return run(context, program, step, outside, first, end)
        for i in range(first, end):
            operation = program._obj.operations[i]
            rows = step._obj.num_kept if operation.is_taken or operation.op == TAKE else step._obj.num_tokens
            part = _OPERATIONS[operation.op]
            stopwatch.charge(part, 0.0, _operation_cost(program._obj, operation, rows))
            status: int = timed[part](context, program, step, outside, i, i + 1)
            if status:
                return status
        return 0

    return stepwise


def _operation_cost(program: ProgramStruct, operation: OperationStruct, rows: int) -> Cost | None:
    item, width = _ITEM_BYTES[program.dtype], program.widths[operation.y]
    if operation.op == LINEAR:
        return _product(MatrixStruct.from_address(operation.args), rows, item, item)
    if operation.op == NORM:
        return Cost(2.0 * rows * NormStruct.from_address(operation.args).n * item)
    if operation.op == ATTEND:
        return None
    return Cost((3.0 if operation.op == ADD else 2.0) * rows * width * item)
