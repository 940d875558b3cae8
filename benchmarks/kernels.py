"""The CPU kernels beside torch and beside the roofline: `python benchmarks/kernels.py linear` or `attention`.

Each figure is a median over rounds, and a round measures all of them in turn (the roofline's two as well), in
processor time of one thread: so a busy machine disturbs ratios little. A busy second thread of the same core still
shows, in all columns. Weights are cycled through copies, so that they come from memory as in a model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import cycle

import torch

from headrace.model.kernels.library import Kernels, open_kernels
from headrace.model.kernels.linear import PackedLinear
from headrace.model.kernels.paged import Context, PagedCache, attend
from headrace.model.kernels.pages import zeroed_pages

SHAPES = {  # (N, K) of the products of one layer and of the vocabulary
    "S": ((1024, 512), (512, 512), (4096, 512), (512, 2048), (32000, 512)),
    "M": ((4096, 1024), (1024, 2048), (6144, 1024), (1024, 3072), (151936, 1024)),
}
BATCHES = (1, 8, 16, 32, 64, 256)
CONTEXTS = (  # rows, tokens each, context, H, K, D
    (1, 1, 1024, 16, 8, 128),
    (16, 1, 1024, 16, 8, 128),
    (64, 1, 256, 8, 4, 64),
    (1, 256, 1024, 16, 8, 128),
    (4, 64, 512, 16, 8, 128),
)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "int8": torch.int8}
CYCLED_BYTES = 100e6


def seconds(call: Callable[[], object]) -> float:
    """Processor time of this thread."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def rounds(calls: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Median seconds of each call, measured in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in (*calls.items(), *(item for _ in range(count) for item in calls.items())):
        taken[name].append(seconds(call))
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


class Roofline:
    """Calls that show what the processor could do."""

    rounds_of_multiply_adds = 100_000
    num_bytes = 64 << 20

    def __init__(self, kernels: Kernels) -> None:
        """Take the memory that is read."""
        self.memory = zeroed_pages(self.num_bytes).fill_(1)
        self.operations = 0.0
        self.kernels = kernels

    def calls(self) -> dict[str, Callable[[], object]]:
        """To be measured with the rest."""
        return {"flops": self._multiply_add, "bytes": self._read}

    def _multiply_add(self) -> None:
        self.operations = self.kernels.library.hr_probe_flops(self.kernels.context, self.rounds_of_multiply_adds)

    def _read(self) -> None:
        self.kernels.library.hr_probe_read(self.kernels.context, self.memory.data_ptr(), self.num_bytes)

    def show(self, operations: float, num_bytes: float, taken: dict[str, float]) -> str:
        """Rates and shares of the roofline, and torch's time over ours."""
        ours, theirs = taken["ours"], taken["torch"]
        flops, read = operations / ours / 1e9, num_bytes / ours / 1e9
        peak, memory = self.operations / taken["flops"] / 1e9, self.num_bytes / taken["bytes"] / 1e9
        return (
            f"{ours * 1e6:9.0f} us {flops:6.1f} GFLOP/s {flops / peak:4.0%} {read:5.1f} GB/s {read / memory:4.0%}"
            f" | torch {theirs * 1e6:9.0f} us, ratio {theirs / ours:5.2f} | peak {peak:4.0f} GFLOP/s {memory:5.1f} GB/s"
        )


def linear(kernels: Kernels, count: int, kinds: list[str], shapes: list[str]) -> None:
    """Products of every shape, dtype and number of rows; int8 stands beside torch's bf16."""
    roofline = Roofline(kernels)
    for n, k in (shape for name in shapes for shape in SHAPES[name]):
        for kind in kinds:
            io_dtype = torch.float32 if kind == "fp32" else torch.bfloat16
            num_bytes = n * k * DTYPES[kind].itemsize
            copies = max(1, min(8, int(CYCLED_BYTES / num_bytes)))
            weights = [(torch.randn(n, k) / k**0.5).to(io_dtype) for _ in range(copies)]
            packed = cycle([PackedLinear.of(kernels, weight, dtype=DTYPES[kind]) for weight in weights])
            plain = cycle(weights)
            for m in BATCHES:
                x, out = torch.randn(m, k).to(io_dtype), torch.empty(m, n, dtype=io_dtype)
                calls = {
                    "ours": lambda x=x, out=out, packed=packed: next(packed)(x, out=out),
                    "torch": lambda x=x, plain=plain: torch.nn.functional.linear(x, next(plain)),
                    **roofline.calls(),
                }
                taken = rounds(calls, count)
                print(f"{n:6} x {k:4} {kind} M={m:3}", roofline.show(2 * m * n * k, num_bytes, taken), flush=True)


def attention(kernels: Kernels, count: int, kinds: list[str]) -> None:
    """Decodes and chunks; torch's SDPA gets contiguous keys and values, which nobody has to gather for it."""
    roofline = Roofline(kernels)
    for kind in (kind for kind in kinds if kind != "int8"):
        dtype = DTYPES[kind]
        for batch, tokens, length, heads, kv_heads, dim in CONTEXTS:
            shape = {"block_size": 32, "num_kv_heads": kv_heads, "key_dim": dim, "value_dim": dim, "dtype": dtype}
            num_blocks = batch * length // 32
            cache = PagedCache(kernels, num_blocks=num_blocks, **shape)
            key, value = (torch.randn(batch * length, kv_heads, dim).to(dtype) for _ in range(2))
            cache.write(kernels, key, value, torch.arange(batch * length))
            query = torch.randn(batch * tokens, heads, dim).to(dtype)
            start = torch.arange(0, batch * tokens + 1, tokens, dtype=torch.int32)
            table = torch.arange(num_blocks, dtype=torch.int32).view(batch, -1)
            context = Context(start, torch.full((batch,), length, dtype=torch.int32), table)
            q, k, v = (t.view(batch, -1, t.shape[1], dim).transpose(1, 2).contiguous() for t in (query, key, value))
            position = torch.arange(length - tokens, length)[:, None]
            mask = None if tokens == 1 else torch.arange(length)[None] <= position
            scale = dim**-0.5
            sdpa = torch.nn.functional.scaled_dot_product_attention
            calls = {
                "ours": lambda: attend(kernels, cache, query, context, scale=scale),  # noqa: B023
                "torch": lambda: sdpa(q, k, v, attn_mask=mask, enable_gqa=True, scale=scale),  # noqa: B023
                **roofline.calls(),
            }
            seen = batch * int((position + 1).sum())
            text = roofline.show(4 * seen * heads * dim, 2 * key.numel() * dtype.itemsize, rounds(calls, count))
            print(f"{kind} {batch:2} x {tokens:3} of {length:4}, {heads}/{kv_heads} heads of {dim}", text, flush=True)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["linear", "attention"])
    parser.add_argument("--isa", help="instruction set; by default the best")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtypes", default="bf16,fp32,int8")
    parser.add_argument("--shapes", default="S,M")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kernels = open_kernels(args.isa, 1)
    print(f"{kernels.isa}, one thread, medians of {args.rounds}")
    if args.what == "linear":
        linear(kernels, args.rounds, args.dtypes.split(","), args.shapes.split(","))
    else:
        attention(kernels, args.rounds, args.dtypes.split(","))
    return 0


if __name__ == "__main__":
    sys.exit(main())
