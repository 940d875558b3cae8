"""Time the attention of one engine step, all layers of it, by implementation: `python benchmarks/attention_step.py`.

Prints, for steps of decodes, of prompts and of both, the wall time of a step and the processor time of all threads (on
a shared machine the latter says more), best of `--repeats`.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import torch

from headrace.model.attention import registry
from headrace.model.attention.interface import AttentionBatch, AttentionImplementation, LayerSpec

Rows = list[tuple[int, int]]
"""(tokens in the cache, tokens of the step) of each row."""


def workloads() -> dict[str, Rows]:
    """Steps as they happen when 64 requests with prompts of 16..256 tokens generate up to 128."""
    draw = random.Random(0)
    decodes = [(draw.randint(15, 383), 1) for _ in range(64)]
    prompts = [(0, draw.randint(16, 256)) for _ in range(16)]
    return {
        "64 decodes, contexts 16..384": decodes,
        "63 decodes of 16..384, one of 8192": [(8191, 1), *decodes[1:]],
        "16 prompts of 16..256": prompts,
        "64 prompts of 16": [(0, 16)] * 64,
        "32 prompts of 32 after a cached prefix of 192": [(192, 32)] * 32,
        "a chunk of 512 after 1536": [(1536, 512)],
        "32 decodes and 4 prompts": decodes[:32] + prompts[:4],
    }


def make_batch(rows: Rows, block_size: int) -> tuple[AttentionBatch, int]:
    """A batch over shuffled blocks, and how many blocks there are."""
    lens = [past + new for past, new in rows]
    needed = [-(-n // block_size) for n in lens]
    free = list(range(sum(needed)))
    random.Random(1).shuffle(free)
    tables = [[free.pop() for _ in range(n)] for n in needed]
    slots = [
        table[p // block_size] * block_size + p % block_size
        for table, (past, new) in zip(tables, rows, strict=True)
        for p in range(past, past + new)
    ]
    query_lens = [new for _, new in rows]
    batch = AttentionBatch(
        query_lens=query_lens,
        context_lens=lens,
        num_decodes=query_lens.count(1),
        query_start=torch.tensor([0, *query_lens], dtype=torch.int32).cumsum(0, dtype=torch.int32),
        context_len=torch.tensor(lens, dtype=torch.int32),
        slot_mapping=torch.tensor(slots),
        block_table=torch.tensor([t + [0] * (max(needed) - len(t)) for t in tables], dtype=torch.int32),
        block_size=block_size,
    )
    return batch, sum(needed)


def make_step(
    implementation: AttentionImplementation, rows: Rows, layers: list[LayerSpec], block_size: int, dtype: torch.dtype
) -> Callable[[], None]:
    """One step's attention, `prepare` included, over caches that are full of random numbers."""
    batch, num_blocks = make_batch(rows, block_size)
    caches = [implementation.allocate(layer, num_blocks, block_size, dtype, torch.device("cpu")) for layer in layers]
    num_tokens, layer = sum(batch.query_lens), layers[0]
    shapes = [
        (layer.num_heads, num_tokens, layer.key_dim),
        (layer.num_kv_heads, num_tokens, layer.key_dim),
        (layer.num_kv_heads, num_tokens, layer.value_dim),
    ]
    query, key, value = (torch.randn(shape).to(dtype).transpose(0, 1) for shape in shapes)

    def step() -> None:
        batch.prepared.clear()
        implementation.prepare(batch, layers)
        for layer, cache in zip(layers, caches, strict=True):
            implementation.forward(query, key, value, None, layer, cache, batch)

    return step


def best_ms(step: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Least wall and processor time of a step, in milliseconds, after one to warm up."""
    step()
    wall, processor = [], []
    for _ in range(repeats):
        wall_began, processor_began = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - wall_began)
        processor.append(time.process_time() - processor_began)
    return min(wall) * 1e3, min(processor) * 1e3


def main() -> None:
    """Parse the command line, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--implementation", default="auto", help=f"auto or one of {', '.join(registry.available())}")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--window", type=int, default=None)
    parser.add_argument("--softcap", type=float, default=None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    layers = [
        LayerSpec(
            index=index,
            num_heads=args.heads,
            num_kv_heads=args.kv_heads,
            key_dim=args.head_dim,
            value_dim=args.head_dim,
            scale=args.head_dim**-0.5,
            window=args.window,
            softcap=args.softcap,
        )
        for index in range(args.layers)
    ]
    print(f"{'step':48}{'wall ms':>10}{'cpu ms':>10}")
    for name, rows in workloads().items():
        implementation = registry.get(args.implementation)
        step = make_step(implementation, rows, layers, args.block_size, getattr(torch, args.dtype))
        wall_ms, processor_ms = best_ms(step, args.repeats)
        print(f"{name:48}{wall_ms:10.2f}{processor_ms:10.2f}", flush=True)


if __name__ == "__main__":
    main()
