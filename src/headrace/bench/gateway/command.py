"""`headrace bench gateway`: the command line."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.bench.numbers import natural
from headrace.errors import BenchmarkFailed, ConfigError

if TYPE_CHECKING:
    from headrace.bench.gateway.contenders import Contender

_NAMES = ("direct", "headrace", "headrace-rr", "haproxy", "nginx", "vllm-router", "sglang-router")
_FAULTS = ("sigkill", "sigstop", "reset", "truncate", "stall", "hang", "storm", "slow-client", "gateway")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    add = parser.add_argument
    add("what", choices=("overhead", "faults"), help="what a gateway costs, or what clients see when something fails")
    add("--gateways", nargs="+", choices=_NAMES, default=["headrace"], metavar="NAME", help=", ".join(_NAMES))
    add(
        "--command", action="append", default=[], metavar="NAME=PATH",
        help="where a gateway's program is, when it is not on the PATH",
    )  # fmt: skip
    add("--faults", nargs="+", choices=_FAULTS, default=list(_FAULTS), metavar="FAULT", help=", ".join(_FAULTS))
    add("--seconds", type=float, help="of each part of overhead (5), of each fault (16)")
    add("--distinct-prompts", type=natural, default=0, metavar="N", help="sent before the memory is read (none)")
    add("--json", type=Path, metavar="FILE", help="write the figures")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; 1 when a gateway could not be measured. Raises ConfigError."""
    from headrace.bench.gateway.contenders import CONTENDERS, find, version

    commands = _commands(arguments.command)
    found = [(CONTENDERS[name], find(CONTENDERS[name], commands)) for name in arguments.gateways]
    for contender, program in found:
        print(f"{contender.name}: {version(contender, program)} ({contender.note})".replace(":  (", ": ("))
    text, data, failed = (_overhead if arguments.what == "overhead" else _faults)(arguments, found)
    print(f"\n{text}")
    for line in failed:
        print(f"headrace: error: {line}", file=sys.stderr)
    if arguments.json is not None:
        arguments.json.write_text(data, encoding="utf-8")
    return 1 if failed else 0


def _overhead(arguments: argparse.Namespace, found: list[tuple[Contender, str]]) -> tuple[str, str, list[str]]:
    from headrace.bench.gateway import overhead

    plan = overhead.Plan(arguments.seconds or 5.0, arguments.distinct_prompts)
    results, failed = [], []
    for contender, program in found:
        with tempfile.TemporaryDirectory() as folder:
            try:
                results.append(overhead.measure(contender, program, plan, Path(folder)))
            except BenchmarkFailed as error:
                failed.append(f"{contender.name}: {error}")
    return overhead.table(results), overhead.as_json(results).decode(), failed


def _faults(arguments: argparse.Namespace, found: list[tuple[Contender, str]]) -> tuple[str, str, list[str]]:
    from headrace.bench.gateway import faults

    outcomes, failed = [], []
    for fault in arguments.faults:
        for contender, program in found:
            if not program:
                raise ConfigError(f"{contender.name} is no gateway; faults are of gateways")
            with tempfile.TemporaryDirectory() as folder:
                try:
                    outcomes.append(faults.measure(contender, program, fault, arguments.seconds or 16.0, Path(folder)))
                except BenchmarkFailed as error:
                    failed.append(f"{contender.name}, {fault}: {error}")
    return faults.table(outcomes), faults.as_json(outcomes), failed


def _commands(given: list[str]) -> dict[str, str]:
    commands = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or name not in _NAMES:
            raise ConfigError(f"--command {text!r} is not NAME=PATH with a name of {', '.join(_NAMES)}")
        commands[name] = path
    return commands
