"""What sampling costs a step: milliseconds for one call of the sampler, by what the rows ask.

    python benchmarks/sampler_step.py [--rows 64] [--vocab 32000] [--dtype bfloat16] [--threads 2] [--kernels]

Greedy rows are bound by reading the logits once: "to read" is what a NumPy maximum over the same bytes takes.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import torch

from headrace.engine.plan import SamplingRow
from headrace.engine.runner.sampler import Sampler
from headrace.engine.sampling_params import SamplingParams
from headrace.model.kernels.library import open_kernels

WORKLOADS = {
    "greedy": SamplingParams(temperature=0.0),
    "greedy, 5 logprobs": SamplingParams(temperature=0.0, logprobs=5),
    "greedy, repetition": SamplingParams(temperature=0.0, repetition_penalty=1.1),
    "greedy, frequency": SamplingParams(temperature=0.0, frequency_penalty=0.5),
    "temperature": SamplingParams(),
    "min_p 0.05": SamplingParams(min_p=0.05),
    "top_k 50": SamplingParams(top_k=50),
    "top_k 50, top_p 0.9": SamplingParams(top_k=50, top_p=0.9),
    "top_p 0.9": SamplingParams(top_p=0.9),
    "top_k 1000": SamplingParams(top_k=1000),
    "top_p 0.99, flat": SamplingParams(top_p=0.99, temperature=5.0),
}


def milliseconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Fastest and median of `repeats` calls, after two to warm up."""
    taken = []
    for i in range(repeats + 2):
        start = time.perf_counter()
        call()
        if i >= 2:
            taken.append((time.perf_counter() - start) * 1e3)
    taken.sort()
    return taken[0], taken[len(taken) // 2]


def main() -> None:
    """Measure every workload and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--tokens", type=int, default=2_000, help="prompt + output of each row, half each")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--kernels", action="store_true", help="draw on the CPU kernels")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    device = torch.device(args.device)
    generator = torch.manual_seed(0)
    # Peaked like a language model's: a few tokens hold most of the mass.
    logits = torch.randn(args.rows, args.vocab, generator=generator) * 3
    logits[:, :20] += 9 * torch.rand(args.rows, 20, generator=generator)
    logits = logits.to(device, getattr(torch, args.dtype))
    tokens = [[random.randrange(args.vocab) for _ in range(args.tokens)] for _ in range(args.rows)]
    half = args.tokens // 2
    kernels = open_kernels(num_threads=args.threads) if args.kernels else None
    sampler = Sampler(args.vocab, device, kernels)

    print(f"{args.rows} rows × {args.vocab} logits, {args.dtype}, {args.device}, {args.threads} threads; ms per step")
    print(f"{'':24}{'fastest':>9}{'median':>9}")
    if device.type == "cpu":
        raw = logits.view(torch.int16 if logits.element_size() == 2 else torch.int32).numpy()
        fastest, median = milliseconds(lambda: raw.max(axis=-1), args.repeats)
        print(f"{'to read':24}{fastest:9.3f}{median:9.3f}   {logits.nbytes / fastest / 1e6:.1f} GB/s")
    for name, params in WORKLOADS.items():
        rows = [SamplingRow(params, seed, args.tokens, ids[:half], ids[half:]) for seed, ids in enumerate(tokens)]
        fastest, median = milliseconds(lambda rows=rows: sampler.sample(logits, rows), args.repeats)  # type: ignore[misc]
        print(f"{name:24}{fastest:9.3f}{median:9.3f}")


if __name__ == "__main__":
    main()
