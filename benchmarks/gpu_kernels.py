"""Check and time the Triton kernels, variant by variant: `PYTHONPATH=src python benchmarks/gpu_kernels.py`.

Needs a GPU, torch, triton and numpy. Prints, for the shapes of Qwen3-0.6B and 8B, the time of each variant beside the
time in which its bytes can be moved (`--bandwidth`, of an H200 by default), and writes all to `--out`. What the tables
in `triton_kernels/launch_plan.py`, `operations.py` and `sampling.py` say is to be set by these figures.

With `--check-only` the kernels are only compared with float64, small; without a GPU in Triton's interpreter
(`TRITON_INTERPRET=1`).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.attention.reference import ReferenceAttention
from headrace.model.attention.triton_paged import TritonAttention
from headrace.model.triton_kernels import launch_plan, operations
from headrace.model.triton_kernels.launch_plan import LaunchPlan, Tile, plan_launch
from headrace.model.triton_kernels.sampling import draw

BLOCK_SIZE, CONTEXT, VOCABULARY, COLD_BYTES = 32, 1_100, 151_936, 256e6
BATCHES = (1, 8, 32, 128, 256)
BF16 = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Shape:
    """One model: its attention layer, hidden and feed-forward width."""

    layer: LayerSpec
    hidden: int
    inner: int


SHAPES = {
    "0.6B": Shape(LayerSpec(0, 16, 8, 128, 128, 128**-0.5), 1_024, 3_072),
    "8B": Shape(LayerSpec(0, 32, 8, 128, 128, 128**-0.5), 4_096, 12_288),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured variant: best of the medians, beside the limit; `error` in their place where it does not run."""

    kernel: str
    shape: str
    batch: int
    variant: str
    us: float
    limit_us: float
    error: str = ""


class Bench:
    """Times calls and keeps the figures, until the time is over."""

    def __init__(self, bandwidth: float, budget_s: float) -> None:
        self.figures: list[Figure] = []
        self.bandwidth = bandwidth
        self._end = time.monotonic() + budget_s

    def time(
        self, kernel: str, shape: str, batch: int, variant: str, num_bytes: float, calls: Sequence[Callable[[], Any]]
    ) -> float:
        """Microseconds of one of `calls` on cold data, which together take more memory than the cache has."""
        if time.monotonic() > self._end:
            return math.inf
        limit, error, us = num_bytes / self.bandwidth * 1e6, "", math.inf
        try:
            us = microseconds(calls)
        except Exception as problem:  # out of shared memory or registers, say: one variant less
            error = f"{type(problem).__name__}: {str(problem)[:100]}"
        self.figures.append(Figure(kernel, shape, batch, variant, us, limit, error))
        print(
            f"{kernel:18} {shape:5} {batch:4}  {variant:44} {us:9.1f} µs  limit {limit:8.1f}  {limit / us:4.0%} {error}"
        )
        return us

    def best(self, kernel: str, shape: str, batch: int) -> Figure | None:
        """The fastest variant."""
        of_it = [f for f in self.figures if (f.kernel, f.shape, f.batch) == (kernel, shape, batch) and not f.error]
        return min(of_it, key=lambda figure: figure.us, default=None)


def microseconds(calls: Sequence[Callable[[], Any]], rounds: int = 5) -> float:
    """One call's median time in a captured graph that makes each of them, at least 20 in all."""
    for call in calls[:2]:
        call()
    torch.cuda.synchronize()
    repeats = -(-20 // len(calls))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            for call in calls:
                call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for i in range(rounds + 2):
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        if i >= 2:
            times.append(begin.elapsed_time(end))
    return statistics.median(times) * 1e3 / (repeats * len(calls))


def make_batch(rows: Sequence[tuple[int, int]], device: str, block_size: int = BLOCK_SIZE) -> AttentionBatch:
    """(tokens in the cache, tokens of the step) of each row, in shuffled blocks."""
    lens = [past + new for past, new in rows]
    width = -(-max(lens) // block_size)
    table = torch.randperm(len(rows) * width, generator=torch.Generator().manual_seed(0)).view(len(rows), width)
    slots = [
        int(table[r, p // block_size]) * block_size + p % block_size
        for r, (past, new) in enumerate(rows)
        for p in range(past, past + new)
    ]
    starts = torch.tensor([0] + [new for _, new in rows], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return AttentionBatch(
        query_lens=[new for _, new in rows],
        context_lens=lens,
        num_decodes=sum(new == 1 for _, new in rows),
        query_start=starts.to(device),
        context_len=torch.tensor(lens, dtype=torch.int32, device=device),
        slot_mapping=torch.tensor(slots, device=device),
        block_table=table.int().to(device),
        block_size=block_size,
    )


def planner(**changes: Any) -> Callable[..., LaunchPlan]:
    """The plan with some of its fields changed."""

    def plan(layer: LayerSpec, shape: launch_plan.BatchShape, itemsize: int, num_sms: int) -> LaunchPlan:
        tiles = (changes.get("decode"), changes.get("prefill"))
        defaults = launch_plan.choose_tiles(layer, itemsize)
        chosen = (tiles[0] or defaults[0], tiles[1] or defaults[1])
        made = plan_launch(layer, shape, itemsize, num_sms, chosen)
        return replace(made, **{k: v for k, v in changes.items() if k not in ("decode", "prefill")})

    return plan


def check(device: str) -> None:
    """Every kernel against float64; raises AssertionError."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    for name, dtype, limit in (
        ("float32", torch.float32, 2e-5),
        ("float16", torch.float16, 5e-3),
        ("bf16", BF16, 4e-2),
    ):
        for layer in (SHAPES["0.6B"].layer, LayerSpec(0, 4, 2, 80, 80, 0.1, window=20, softcap=20.0, has_sinks=True)):
            layer = replace(layer, num_heads=4, num_kv_heads=2)
            batch = make_batch([(70, 1), (4, 1), (0, 5), (9, 20)], device, 16)
            tokens = [random(27, heads, layer.key_dim).to(device, dtype) for heads in (4, 2, 2)]
            sinks = random(4).to(device) if layer.has_sinks else None
            got = []
            for attention, cast in (
                (ReferenceAttention(), torch.float64), (TritonAttention(), dtype),
                (TritonAttention(planner(num_splits=4, min_split_tokens=16)), dtype),
            ):  # fmt: skip
                cache = attention.allocate(layer, 32, 16, cast, torch.device(device))
                got.append(attention.forward(*(t.to(cast) for t in tokens), sinks, layer, cache, batch).double())
            for result in got[1:]:
                torch.testing.assert_close(result, got[0], rtol=limit, atol=limit)
        x, weight = random(3, 96).to(device, dtype), random(96).to(device, dtype)
        wide = x.double()
        expected = wide * (wide.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight.double()
        normed = operations.norm(x, weight, None, 1e-6, False, 0.0)
        torch.testing.assert_close(normed.double(), expected, rtol=limit, atol=limit)
        gated = torch.nn.functional.silu(wide[:, :48]) * wide[:, 48:]
        torch.testing.assert_close(operations.activate(x, 1, True).double(), gated, rtol=limit, atol=limit)
        print(f"attention, norm and activation in {name}: as float64")
    check_draws(device, generator)


def check_draws(device: str, generator: torch.Generator) -> None:
    """Tokens in the order of the logits: where the distribution function steps over the random number."""
    logits = torch.randn(8, 100, generator=generator)
    uniform = torch.rand(8, generator=generator, dtype=torch.float64)
    columns = settings_of(8, device, top_k=20, top_p=0.9)
    drawn = draw(logits.to(device), **{**columns, "uniform": uniform.to(device)}, block=128).cpu()
    values, order = logits.double().sort(descending=True, stable=True)
    weights = (values * 1.4).softmax(-1)
    weights[:, 20:] = 0
    weights /= weights.sum(-1, keepdim=True)
    weights[weights.cumsum(-1) - weights >= 0.9] = 0
    weights /= weights.sum(-1, keepdim=True)
    expected = order.gather(-1, torch.searchsorted(weights.cumsum(-1), uniform[:, None], right=True))[:, 0]
    assert torch.equal(drawn, expected), (drawn, expected)
    print("draws: as float64")


def settings_of(num_rows: int, device: str, top_k: int = VOCABULARY, top_p: float = 1.0) -> dict[str, torch.Tensor]:
    """The columns of `draw`."""
    values = {"uniform": 0.5, "sharpness": 1.4, "top_k": top_k, "top_p": top_p, "min_p": 0.0}
    dtypes = {"uniform": torch.float64, "top_k": torch.int64, "top_p": torch.float64}
    return {
        name: torch.full((num_rows,), value, dtype=dtypes.get(name, torch.float32), device=device)
        for name, value in values.items()
    }


def attention_calls(layer: LayerSpec, batch: AttentionBatch, plan: Callable[..., LaunchPlan], caches: list[Any]) -> Any:
    """Attention of all caches in turn."""
    attention = TritonAttention(plan)
    attention.allocate(layer, 1, BLOCK_SIZE, BF16, torch.device("cuda"))  # asks the device
    query = torch.randn(int(batch.slot_mapping.shape[0]), layer.num_heads, layer.key_dim, device="cuda", dtype=BF16)
    return [lambda cache=cache: attention.attend(query, None, layer, cache, batch) for cache in caches]


def caches_of(layer: LayerSpec, num_blocks: int) -> list[Any]:
    """So many that reading all of them in turn finds nothing in the device's own cache."""
    num_bytes = num_blocks * BLOCK_SIZE * layer.num_kv_heads * (layer.key_dim + layer.value_dim) * 2
    count = max(2, min(64, math.ceil(COLD_BYTES / num_bytes))) if num_bytes < COLD_BYTES else 1
    attention = TritonAttention()
    made = [attention.allocate(layer, num_blocks, BLOCK_SIZE, BF16, torch.device("cuda")) for _ in range(count)]
    for cache in made:
        cache.keys.normal_()
        cache.values.normal_()
    return made


def decode(bench: Bench, name: str, shape: Shape) -> None:
    """Tiles at a middle batch, then splits, warps and stages around the best one, at every batch."""
    layer = shape.layer
    group = max(16, layer.num_heads // layer.num_kv_heads)
    tile = launch_plan.choose_tiles(layer, 2)[0]
    for batch_size in (32, *[b for b in BATCHES if b != 32]):
        batch = make_batch([(CONTEXT - 1, 1)] * batch_size, "cuda")
        caches = caches_of(layer, batch.block_table.numel())
        num_bytes = batch_size * CONTEXT * layer.num_kv_heads * (layer.key_dim + layer.value_dim) * 2
        usual = launch_plan.choose_splits(
            batch_size * layer.num_kv_heads, torch.cuda.get_device_properties(0).multi_processor_count
        )
        variants = [(replace(tile, tokens=t, num_stages=s), usual) for t in (32, 64, 128) for s in (2, 3, 4)]
        if batch_size != 32:
            variants = [(tile, usual)]
        variants += [(tile, s) for s in (1, 2, 4, 8, 16, 32) if s != usual and usual / 4 <= s <= usual * 4]
        variants += [(replace(tile, num_warps=w), usual) for w in (2, 8)]
        fastest = math.inf
        for candidate, splits in variants:
            calls = attention_calls(
                layer, batch, planner(decode=replace(candidate, rows=group), num_splits=splits), caches
            )
            variant = (
                f"{candidate.tokens} tokens {candidate.num_warps} warps {candidate.num_stages} stages {splits} splits"
            )
            us = bench.time("decode", name, batch_size, variant, num_bytes, calls)
            if batch_size == 32 and splits == usual and us < fastest:
                fastest, tile = us, candidate


def prefill(bench: Bench, name: str, shape: Shape) -> None:
    """A chunk of 2,048 tokens from the start, and after 6,144; the limit is 700 TFLOP/s, for want of bytes."""
    layer = shape.layer
    for past in (0, 6_144):
        batch = make_batch([(past, 2_048)], "cuda")
        caches = caches_of(layer, batch.block_table.numel())[:2]
        flops = 4 * layer.num_heads * layer.key_dim * (2_048 * past + 2_048**2 / 2)
        for rows, tokens, warps, stages in (
            (64, 64, 4, 3), (64, 32, 4, 3), (128, 32, 4, 3), (128, 64, 4, 3), (128, 64, 8, 3), (128, 64, 8, 2),
            (128, 128, 8, 2), (256, 64, 8, 2),
        ):  # fmt: skip
            calls = attention_calls(layer, batch, planner(prefill=Tile(rows, tokens, warps, stages)), caches)
            variant = f"{rows} rows {tokens} tokens {warps} warps {stages} stages"
            bench.time(f"prefill after {past}", name, 2_048, variant, flops / 700e12 * bench.bandwidth, calls)


def small(bench: Bench, name: str, shape: Shape) -> None:
    """Norm with sum, activation and rotation with write, by warps and blocks."""
    layer = shape.layer
    for tokens in (1, 32, 256, 2_048):
        x = torch.randn(tokens, shape.hidden, device="cuda", dtype=BF16)
        weight, usual = x[0].clone(), operations.norm_warps
        for warps in (1, 2, 4, 8, 16):
            operations.norm_warps = lambda padded, warps=warps: warps
            call = lambda x=x, weight=weight: operations.add_norm(x, x, weight, None, 1e-6, False, 0.0)  # noqa: E731
            bench.time("add_norm", name, tokens, f"{warps} warps", 4 * x.nbytes, [call])
        operations.norm_warps = usual
        both = torch.randn(tokens, 2 * shape.inner, device="cuda", dtype=BF16)
        for block in (512, 1_024, 2_048, 4_096):
            call = lambda both=both, block=block: operations.activate(both, 1, True, block)  # noqa: E731
            bench.time("activate", name, tokens, f"blocks of {block}", 1.5 * both.nbytes, [call])
        qkv = torch.randn(tokens, (layer.num_heads + 2 * layer.num_kv_heads) * 128, device="cuda", dtype=BF16)
        angles, norm = torch.randn(tokens, 128, device="cuda", dtype=BF16), weight[:128].contiguous()
        keys = torch.zeros(-(-tokens // 32), layer.num_kv_heads, 32, 128, device="cuda", dtype=BF16)
        slots = torch.randperm(tokens, device="cuda")
        call = lambda a=(qkv, norm, norm, angles, angles, slots, keys, keys): operations.rotate_and_write(  # noqa: E731
            *a, 128, False, 1, 1e-6, 0.0
        )
        bench.time("rotate", name, tokens, "as it is", 2 * qkv.nbytes, [call])


def sampling(bench: Bench) -> None:
    """Draws with each filter, and torch's sort of the same logits; the limit is one pass over them."""
    for num_rows in (1, 32, 128, 256):
        logits = (torch.randn(num_rows, VOCABULARY, device="cuda") * 3).to(BF16)
        for what, options in (("plain", {}), ("top_k 50", {"top_k": 50}), ("top_p 0.9", {"top_p": 0.9})):
            columns = settings_of(num_rows, "cuda", **options)
            for block, warps in (
                ((4_096, 16),) if num_rows != 32 else ((2_048, 8), (4_096, 16), (8_192, 16), (8_192, 32))
            ):
                call = lambda l=logits, c=columns, b=block, w=warps: draw(l, **c, block=b, num_warps=w)  # noqa: E731, E741
                bench.time(f"draw {what}", "-", num_rows, f"blocks of {block}, {warps} warps", logits.nbytes, [call])
        bench.time("sort", "-", num_rows, "torch", logits.nbytes, [lambda logits=logits: logits.sort(-1)])


def report(bench: Bench) -> Iterator[str]:
    """The best of each."""
    yield f"{'kernel':18} {'shape':5} batch  best variant                                        µs     limit"
    for kernel, shape, batch in dict.fromkeys((f.kernel, f.shape, f.batch) for f in bench.figures):
        if best := bench.best(kernel, shape, batch):
            yield f"{kernel:18} {shape:5} {batch:5}  {best.variant:44} {best.us:9.1f} {best.limit_us:9.1f}"


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-only", action="store_true", help="compare with float64, and time nothing")
    parser.add_argument("--bandwidth", type=float, default=4.3e12, help="bytes a second that the limit is taken from")
    parser.add_argument("--budget-s", type=float, default=420.0, help="time after which no more variants are timed")
    parser.add_argument("--out", type=Path, default=Path("gpu_kernels.json"), help="where the figures go")
    options = parser.parse_args()
    check("cuda" if torch.cuda.is_available() else "cpu")
    if options.check_only:
        return
    if not torch.cuda.is_available():
        raise SystemExit("timing needs a CUDA device; --check-only does without")
    bench = Bench(options.bandwidth, options.budget_s)
    for name, shape in SHAPES.items():
        decode(bench, name, shape)
    sampling(bench)
    for name, shape in SHAPES.items():
        small(bench, name, shape)
        prefill(bench, name, shape)
    print("\n".join(report(bench)))
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "bandwidth": options.bandwidth}
    options.out.write_text(json.dumps({**machine, "figures": [asdict(f) for f in bench.figures]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
