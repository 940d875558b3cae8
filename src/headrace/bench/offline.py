"""`headrace bench offline`: a fixed set of requests through several engines, side by side."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headrace.bench import workloads
from headrace.bench.comparison import Conditions, Contender, compare
from headrace.bench.engines import ENGINES, EngineSpec, engine
from headrace.bench.report import Report
from headrace.bench.shapes import SHAPES, Shape, model_folder
from headrace.bench.shapes import shape as shape_of
from headrace.errors import ConfigError
from headrace.observability import machine

_MODEL_DIR = Path("~/.cache/headrace/bench")
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
_EPILOG = """\
Peers that headrace's interpreter does not have are run from another one: --python vllm_cpu=/opt/vllm/bin/python.
Each engine has a process of its own; all but the one that is measured are stopped.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG + "\n" + _catalogue()
    add = parser.add_argument
    add("--workload", default="W1", metavar="NAME", help="requests, by name (W1)")
    add("--seed", type=int, help="other requests of the same kind (the workload's published seed)")
    add("--shape", default="S", metavar="NAME", help="model shape with random weights, by name (S)")
    add("--dtype", choices=_DTYPES, default="fp32", help="of the weights and the cache (fp32)")
    add("--engines", type=_names, metavar="A,B,…", help="which engines, in turn (all that can run)")
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
    add("--threads", type=_positive, default=machine.usable_cpus(), help="of each engine (%(default)s, all cores)")
    add("--repeats", type=_positive, default=3, help="of each measurement (%(default)s)")
    add("--timeout", type=_positive, default=1800, metavar="SECONDS", help="for a load or a run (%(default)s)")
    add("--model-dir", type=Path, default=_MODEL_DIR, metavar="FOLDER", help="keeps the models (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything, each repeat included")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; 1 when an engine failed. Raises ConfigError for what does not exist."""
    workload = workloads.workload(arguments.workload, arguments.seed)
    shape = shape_of(arguments.shape)
    pythons = _interpreters(arguments.python)
    options = _options(arguments.set)
    engine(arguments.baseline)
    names, left_out = _choose(arguments.engines, pythons)
    conditions = Conditions(
        workload,
        _DTYPES[arguments.dtype],
        arguments.threads,
        arguments.concurrency or (len(workload.requests),),
        arguments.repeats,
        arguments.timeout,
    )
    root = arguments.model_dir.expanduser()
    contenders = [
        Contender(spec, _model(spec, shape, conditions.dtype, root), pythons.get(spec.name), options.get(spec.name, {}))
        for spec in map(engine, names)
    ]
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


def _choose(wanted: list[str] | None, pythons: dict[str, Path]) -> tuple[list[str], dict[str, str]]:
    """Engines that can run, and the others with the reason why not."""
    chosen, left_out = [], {}
    for name in wanted or ENGINES:
        package = engine(name).package
        if package is None or name in pythons:
            chosen.append(name)
        else:
            left_out[name] = f"no interpreter given; pip install {package} somewhere, then --python {name}=PATH"
    if not chosen:
        raise ConfigError("no engine is left to run: " + "; ".join(left_out.values()))
    return chosen, left_out


def _interpreters(pairs: Iterable[str]) -> dict[str, Path]:
    pythons = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals:
            raise ConfigError(f"--python {pair!r} is not ENGINE=PATH")
        engine(name)
        pythons[name] = Path(path).expanduser()
    return pythons


def _options(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, dot, option = target.partition(".")
        if not (equals and dot and option):
            raise ConfigError(f"--set {setting!r} is not ENGINE.OPTION=VALUE")
        engine(name)
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        options.setdefault(name, {})[option] = value
    return options


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _levels(text: str) -> tuple[int, ...]:
    return tuple(map(_positive, text.split(",")))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _catalogue() -> str:
    """What there is to choose from."""
    lines = ["workloads:", *(f"  {name:<12} {recipe.description}" for name, recipe in workloads.RECIPES.items())]
    lines += ["shapes:", *(f"  {name:<12} {shape.description}" for name, shape in SHAPES.items())]
    return "\n".join([*lines, "engines:", *(f"  {name}" for name in ENGINES)])
