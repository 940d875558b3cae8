"""The command's arguments, and its run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from headrace.bench.arguments import DTYPES, MODEL_DIR, positive, setting
from headrace.bench.shapes import SHAPES, model_folder
from headrace.bench.shapes import shape as shape_of
from headrace.errors import ConfigError
from headrace.observability import machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    add = parser.add_argument
    add("--shape", default="S", metavar="NAME", help=f"model shape with random weights: {', '.join(SHAPES)} (S)")
    add("--model", type=Path, metavar="FOLDER", help="a model of one's own instead")
    add("--dtype", choices=DTYPES, default="bf16", help="of the weights and the cache (bf16)")
    add("--batch", type=_batches, default=(64,), metavar="B,…", help="rows of a step; several make a table (64)")
    add("--context", type=positive, default=192, help="tokens of each row (192)")
    add("--prefill", action="store_true", help="steps that compute whole prompts, instead of one token after them")
    add("--steps", type=positive, default=32, help="to be measured (32)")
    add("--threads", type=positive, default=machine.usable_cpus(), help="of torch (%(default)s, all cores)")
    add("--set", action="append", default=[], metavar="OPTION=VALUE", help="an engine setting: quantization=int8")
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="FOLDER", help="keeps the models (%(default)s)")
    add("--beside-transformers", action="store_true", help="measure the same steps in transformers' generate_batch")
    add("--json", type=Path, metavar="FILE", help="write everything")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report. Raises ConfigError for what does not exist or does not fit."""
    shape = shape_of(arguments.shape)
    settings = dict(map(setting, arguments.set))
    dtype = DTYPES[arguments.dtype]
    folder = arguments.model or model_folder(shape, dtype, arguments.model_dir.expanduser())
    import torch  # here, so that `headrace --help` does not wait for it

    device = settings.get("device", "auto")
    is_apart = str(device).startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if len(arguments.batch) > 1 or arguments.beside_transformers or is_apart:
        return _climb(arguments, folder, dtype, settings)
    from headrace.bench.step.measure import StepShape, split_step
    from headrace.bench.step.report import to_json, to_text

    torch.set_num_threads(arguments.threads)
    wanted = StepShape(arguments.batch[0], arguments.context, arguments.steps, arguments.prefill)
    split = split_step(folder, dtype, wanted, settings)
    title = f"{arguments.model or 'shape ' + shape.name}, {dtype}"
    title += "".join(f", {name}={value}" for name, value in settings.items())
    print(to_text(title, split))
    if arguments.json is not None:
        written = to_json(title, split, ["headrace", *sys.argv[1:]])
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0


def _climb(arguments: argparse.Namespace, folder: Path, dtype: str, settings: dict[str, Any]) -> int:
    """Whole steps of one batch size after the other; on a device they cannot be split by the host's clock."""
    import torch

    from headrace.bench.step import ladder
    from headrace.bench.step.measure import StepShape

    if arguments.prefill:
        raise ConfigError("--prefill takes one --batch, on the CPU")
    torch.set_num_threads(arguments.threads)
    shapes = [StepShape(batch, arguments.context, arguments.steps) for batch in arguments.batch]
    engine = ladder.open_engine(str(folder), dtype, shapes, settings)
    device = engine.loaded.device
    bytes_per_s = ladder.device_bytes_per_s(device)
    try:
        rungs = ladder.climb(engine, shapes, bytes_per_s, lambda line: print(line, file=sys.stderr, flush=True))
    finally:
        engine.core.runner.close()
    if arguments.beside_transformers:
        rungs = ladder.beside_transformers(str(folder), dtype, device, shapes, rungs)
    title = f"{arguments.model or 'shape ' + arguments.shape}, {dtype} on {device}"
    print(ladder.to_text(title, arguments.context, bytes_per_s, rungs))
    if arguments.json is not None:
        written = ladder.to_json(title, arguments.context, bytes_per_s, rungs, ["headrace", *sys.argv[1:]])
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0


def _batches(text: str) -> tuple[int, ...]:
    return tuple(map(positive, text.split(",")))
