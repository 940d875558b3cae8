"""What this machine can do, measured on the spot: reading memory, and products of matrices that lie in its caches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from headrace.bench.step.stopwatch import Cost
from headrace.errors import ConfigError
from headrace.model.kernels.library import Kernels, load_library, open_kernels
from headrace.model.kernels.linear import PackedLinear
from headrace.model.kernels.pages import zeroed_pages

_READ_BYTES = 512 << 20
_SIDES = (384, 768, 1536)
"""Of the square products; the best of them counts."""
_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Roofline:
    """The best of several rounds, with all threads.

    Attributes:
        bytes_per_s: reading. operations_per_s: products of the weights' dtype, by whoever is faster, us or torch.
    """

    bytes_per_s: float
    operations_per_s: float

    def limit_s(self, cost: Cost) -> float:
        """Least seconds for a cost: memory and arithmetic at the same time."""
        return max(cost.num_bytes / self.bytes_per_s, cost.operations / self.operations_per_s)


def measure(dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> Roofline:
    """Measure for weights of float32, bfloat16 or int8 (ConfigError without kernels); takes about two seconds."""
    kernels = open_kernels() if load_library() is not None else None
    if kernels is None and dtype == torch.int8:
        raise ConfigError("int8 products need the CPU kernels, which were not built here")
    products = [product for side in _SIDES for product in _products(dtype, side, kernels)]
    rates = [2.0 * side**3 / _best_s(call, clock) for side, call in products]
    return Roofline(_READ_BYTES / _best_s(_reader(kernels), clock), max(rates))


def _best_s(call: Callable[[], object], clock: Callable[[], float]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        start = clock()
        call()
        best = min(best, clock() - start)
    return best


def _reader(kernels: Kernels | None) -> Callable[[], object]:
    if kernels is None:
        numbers = torch.ones(_READ_BYTES // 4)
        return numbers.sum
    memory = zeroed_pages(_READ_BYTES).fill_(1)
    return lambda: kernels.library.hr_probe_read(kernels.context, memory.data_ptr(), _READ_BYTES)


def _products(dtype: torch.dtype, side: int, kernels: Kernels | None) -> list[tuple[int, Callable[[], Any]]]:
    io_dtype = torch.bfloat16 if dtype == torch.int8 else dtype
    x, weight = torch.randn(side, side).to(io_dtype), torch.randn(side, side).to(io_dtype)
    products: list[tuple[int, Callable[[], Any]]] = []
    if kernels is not None:
        packed, out = PackedLinear.of(kernels, weight, dtype=dtype), torch.empty_like(x)
        products.append((side, lambda: packed(x, out=out)))
    if dtype != torch.int8:
        products.append((side, lambda: torch.nn.functional.linear(x, weight)))
    return products
