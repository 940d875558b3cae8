"""`headrace bench offline`: a fixed set of requests through several engines, side by side."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from headrace.bench import workloads
from headrace.bench.arguments import DTYPES, MODEL_DIR, positive
from headrace.bench.comparison import Conditions, Contender, compare
from headrace.bench.engines import ENGINES, EngineSpec
from headrace.bench.entries import Entry, choose, interpreters, options
from headrace.bench.report import Report
from headrace.bench.shapes import SHAPES, Shape, model_folder
from headrace.bench.shapes import shape as shape_of
from headrace.observability import machine

_EPILOG = """\
Peers that headrace's interpreter does not have are run from another one: --python vllm_cpu=/opt/vllm/bin/python.
Each engine has a process of its own; all but the one that is measured are stopped.
An engine runs twice, with other options, under a second name: --engines headrace,headrace:int8
--set headrace:int8.quantization=int8. Options of ENGINE without a variant go to all of its variants.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG + "\n" + _catalogue()
    add = parser.add_argument
    add("--workload", default="W1", metavar="NAME", help="requests, by name (W1)")
    add("--seed", type=int, help="other requests of the same kind (the workload's published seed)")
    add("--shape", default="S", metavar="NAME", help="model shape with random weights, by name (S)")
    add("--dtype", choices=DTYPES, default="fp32", help="of the weights and the cache (fp32)")
    add("--engines", type=_names, metavar="A,B,B:x,…", help="which engines, in turn (all that can run); see below")
    add("--python", action="append", default=[], metavar="ENGINE=PATH", help="interpreter that has a peer")
    add(
        "--set",
        action="append",
        default=[],
        metavar="ENGINE.OPTION=VALUE",
        help="an option of one engine, VALUE as JSON or text: transformers_generate.batch_size=8",
    )
    add("--baseline", default="headrace", metavar="ENGINE", help="what ratios refer to (headrace)")
    add("--concurrency", type=_levels, metavar="1,2,…", help="so many requests at a time, each in turn (all at once)")
    add("--threads", type=positive, default=machine.usable_cpus(), help="of each engine (%(default)s, all cores)")
    add("--repeats", type=positive, default=3, help="of each measurement (%(default)s)")
    add("--warm-up", type=int, default=0, metavar="N", help="whole runs before, which are not counted (%(default)s)")
    add("--timeout", type=positive, default=1800, metavar="SECONDS", help="for a load or a run (%(default)s)")
    add("--model-dir", type=Path, default=MODEL_DIR, metavar="FOLDER", help="keeps the models (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything, each repeat included")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; 1 when an engine failed. Raises ConfigError for what does not exist."""
    workload = workloads.workload(arguments.workload, arguments.seed)
    shape = shape_of(arguments.shape)
    pythons = interpreters(arguments.python)
    Entry.parse(arguments.baseline)
    entries, left_out = choose(arguments.engines, pythons)
    given = options(arguments.set, entries)
    conditions = Conditions(
        workload,
        DTYPES[arguments.dtype],
        arguments.threads,
        arguments.concurrency or (len(workload.requests),),
        arguments.repeats,
        arguments.timeout,
        arguments.warm_up,
    )
    root = arguments.model_dir.expanduser()
    contenders = []
    for entry in entries:
        model = _model(entry.spec, shape, conditions.dtype, root)
        contenders.append(Contender(entry.spec, model, pythons.get(entry.spec.name), given[entry], entry.variant))
    results = compare(contenders, conditions, lambda line: print(line, file=sys.stderr, flush=True))
    measured = [result.name for result in results if result.runs]
    baseline = arguments.baseline if arguments.baseline in measured or not measured else measured[0]
    report = Report(shape.name, conditions, results, left_out, baseline, ["headrace", *sys.argv[1:]])
    print(report.text())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    return 1 if any(result.failure for result in results) else 0


def _model(spec: EngineSpec, shape: Shape, dtype: str, root: Path) -> Path:
    """The shape's model in an engine's format; made on first use."""
    if spec.model_format == "gguf":
        from headrace.bench.gguf_file import convert

        return convert(model_folder(shape, "float32", root), dtype)
    return model_folder(shape, dtype, root)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _levels(text: str) -> tuple[int, ...]:
    return tuple(map(positive, text.split(",")))


def _catalogue() -> str:
    """What there is to choose from."""
    lines = ["workloads:", *(f"  {name:<12} {recipe.description}" for name, recipe in workloads.RECIPES.items())]
    lines += ["shapes:", *(f"  {name:<12} {shape.description}" for name, shape in SHAPES.items())]
    return "\n".join([*lines, "engines:", *(f"  {name}" for name in ENGINES)])
