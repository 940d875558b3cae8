"""The command's arguments, and its run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from headrace.bench.arguments import DTYPES, MODEL_DIR, positive, setting
from headrace.bench.shapes import SHAPES, model_folder
from headrace.bench.shapes import shape as shape_of
from headrace.observability import machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    add = parser.add_argument
    add("--shape", default="S", metavar="NAME", help=f"model shape with random weights: {', '.join(SHAPES)} (S)")
    add("--model", type=Path, metavar="FOLDER", help="a model of one's own instead")
    add("--dtype", choices=DTYPES, default="bf16", help="of the weights and the cache (bf16)")
    add("--batch", type=positive, default=64, help="rows of a step (64)")
    add("--context", type=positive, default=192, help="tokens of each row (192)")
    add("--prefill", action="store_true", help="steps that compute whole prompts, instead of one token after them")
    add("--steps", type=positive, default=32, help="to be measured (32)")
    add("--threads", type=positive, default=machine.usable_cpus(), help="of torch (%(default)s, all cores)")
    add("--set", action="append", default=[], metavar="OPTION=VALUE", help="an engine setting: quantization=int8")
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="FOLDER", help="keeps the models (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report. Raises ConfigError for what does not exist or does not fit."""
    shape = shape_of(arguments.shape)
    settings = dict(map(setting, arguments.set))
    dtype = DTYPES[arguments.dtype]
    folder = arguments.model or model_folder(shape, dtype, arguments.model_dir.expanduser())
    import torch  # here, so that `headrace --help` does not wait for it

    from headrace.bench.step.measure import StepShape, split_step
    from headrace.bench.step.report import to_json, to_text

    torch.set_num_threads(arguments.threads)
    wanted = StepShape(arguments.batch, arguments.context, arguments.steps, arguments.prefill)
    split = split_step(folder, dtype, wanted, settings)
    title = f"{arguments.model or 'shape ' + shape.name}, {dtype}"
    title += "".join(f", {name}={value}" for name, value in settings.items())
    print(to_text(title, split))
    if arguments.json is not None:
        written = to_json(title, split, ["headrace", *sys.argv[1:]])
        arguments.json.write_text(json.dumps(written, indent=1) + "\n")
    return 0
