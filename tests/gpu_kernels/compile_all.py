"""Compiles every launch of some calls for an H100 or H200, on a machine without a GPU: launching is replaced.

Run by `test_compiles.py` in a process of its own, without the interpreter; prints one line per compiled kernel.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from headrace.model.attention.triton_paged import TritonAttention
from headrace.model.triton_kernels import operations
from headrace.model.triton_kernels.sampling import draw
from tests.attention.cases import make_case, make_layer

SHARED_BYTES = 227 * 1024
"""Of one program, on compute capability 9.0."""

FEATURES: list[dict[str, Any]] = [
    {"num_heads": 16, "num_kv_heads": 8, "key_dim": 128},
    {"num_heads": 32, "num_kv_heads": 8, "key_dim": 128},
    {"num_heads": 8, "num_kv_heads": 2, "key_dim": 80, "window": 7, "has_sinks": True},
    {"num_heads": 6, "num_kv_heads": 2, "key_dim": 256, "softcap": 30.0, "chunk": 8},
    {"num_heads": 71, "num_kv_heads": 1, "key_dim": 64},
    {"num_heads": 4, "num_kv_heads": 4, "key_dim": 192, "value_dim": 128},
]


def compile_instead_of_launching() -> dict[str, Any]:
    """Make every launch compile only; returns what is compiled, by name and number."""
    compiled: dict[str, Any] = {}

    def launcher(kernel: Any, grid: Any) -> Any:
        def launch(*args: Any, **kwargs: Any) -> None:
            made = kernel.warmup(*args, grid=grid, **kwargs)
            compiled[f"{kernel.__name__} {made.hash}"] = made

        return launch

    target = GPUTarget("cuda", 90, 32)
    pretended = SimpleNamespace(
        get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0
    )
    driver.set_active(pretended)
    JITFunction.__getitem__ = launcher  # type: ignore[method-assign, assignment]
    return compiled


def attention() -> None:
    for features in FEATURES:
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            make_case(make_layer(**features), [(9, 1), (3, 4)], 32, dtype=dtype).run(TritonAttention(), dtype)
    layer = make_layer(**FEATURES[0])
    many = [(0, 1)] * 128  # unsplit
    make_case(layer, many, 32, dtype=torch.bfloat16).run(TritonAttention(), torch.bfloat16)


def small_operations() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        x, weight = torch.zeros(3, 8192, dtype=dtype), torch.zeros(8192, dtype=dtype)
        operations.norm(x, weight, None, 1e-6, False, 0.0)
        operations.add_norm(x, x, weight, weight, 1e-6, True, 1.0)
        for activation in range(5):
            operations.activate(x, activation, activation < 3)
        qkv, angles, norm = torch.zeros(3, 8 * 96, dtype=dtype), torch.zeros(3, 64, dtype=dtype), x[0, :96]
        keys, slots = torch.zeros(2, 2, 16, 96, dtype=dtype), torch.zeros(3, dtype=torch.int64)
        for interleaved in (False, True):
            operations.rotate_and_write(
                qkv, norm, norm, angles, angles, slots, keys, keys, 64, interleaved, 1, 1e-6, 0.0
            )


def draws() -> None:
    settings = {"uniform": torch.float64, "sharpness": torch.float32, "top_k": torch.int64}
    settings |= {"top_p": torch.float64, "min_p": torch.float32}
    for dtype in (torch.bfloat16, torch.float32):
        draw(torch.zeros(2, 151_936, dtype=dtype), **{n: torch.zeros(2, dtype=d) for n, d in settings.items()})


if __name__ == "__main__":
    kernels = compile_instead_of_launching()
    draws()
    small_operations()
    attention()
    for name, kernel in kernels.items():
        shared, options = kernel.metadata.shared, kernel.metadata
        print(name.split()[0], shared, options.num_warps, options.num_stages, len(kernel.asm.get("cubin", b"")))
        assert shared <= SHARED_BYTES, (name, shared)
