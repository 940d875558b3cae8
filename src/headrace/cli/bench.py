"""`headrace bench`: one subcommand per benchmark."""

from __future__ import annotations

import argparse
from importlib import import_module

_BENCHMARKS = {
    "offline": ("headrace.bench.offline", "a fixed set of requests, engines side by side"),
    "step": ("headrace.bench.step.command", "where the time of one step goes, beside what the machine could do"),
    "serve": ("headrace.bench.serve.command", "load on a server, as its clients see it"),
    "gateway": ("headrace.bench.gateway.command", "what a gateway costs, and what its clients see of faults"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add each benchmark's subcommand."""
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, (module_name, summary) in _BENCHMARKS.items():
        module = import_module(module_name)
        sub = benchmarks.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        module.add_arguments(sub)
        sub.set_defaults(run_benchmark=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark that was chosen."""
    return int(arguments.run_benchmark(arguments))
