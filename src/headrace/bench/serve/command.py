"""`headrace bench serve`: the command line."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.bench.numbers import natural, positive, ratio
from headrace.errors import ConfigError

if TYPE_CHECKING:
    from headrace.bench.serve.arrivals import Arrivals
    from headrace.bench.serve.report import Header

_EPILOG = """\
Lengths, in tokens: 128, 100-1024 (uniform), normal:512:128, lognormal:512:0.6 (median, sigma).
Prompts are made of common words, about a token each; with --tokenizer they are cut by the token. The report counts
what the server says it counted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("url", nargs="?", default="http://127.0.0.1:8000", help="address of the server (%(default)s)")
    add("--model", help="name to ask for (the first that the server lists)")
    add("--endpoint", choices=("chat", "completions"), default="chat", help="(%(default)s)")
    add("--api-key", help="sent as a bearer token")
    add("--num-requests", type=positive, default=64, metavar="N", help="turns of conversations included (%(default)s)")
    add(
        "--rate",
        default="inf",
        metavar="R | A:B",
        help="arrivals per second, or a ramp; inf: all at once (%(default)s)",
    )
    add("--burstiness", type=float, default=1.0, metavar="X", help="1: Poisson; below: bursts; inf: constant (1)")
    add("--max-concurrency", type=positive, metavar="N", help="requests at a time (any number)")
    add("--prompt-tokens", default="128", metavar="LENGTHS", help="(%(default)s)")
    add("--output-tokens", default="64", metavar="LENGTHS", help="(%(default)s)")
    add("--prefix-tokens", type=natural, default=0, metavar="N", help="length of a shared prefix (none)")
    add("--num-prefixes", type=positive, default=1, metavar="N", help="different shared prefixes (%(default)s)")
    add("--turns", type=positive, default=1, metavar="N", help="turns of each conversation (%(default)s)")
    add("--cancel-ratio", type=ratio, default=0.0, metavar="0..1", help="share of clients that go away half way (0)")
    add("--temperature", type=float, metavar="T", help="(the server's default)")
    add("--stop-at-eos", action="store_true", help="let answers end by themselves, instead of having their full length")
    add("--tokenizer", metavar="FOLDER", help="folder with a tokenizer.json, or builtin, to cut prompts by the token")
    add(
        "--goodput",
        nargs="+",
        default=[],
        metavar="NAME:MS",
        help="limits that count as good: ttft:200 tpot:50 e2el:5000",
    )
    add("--timeout", type=float, default=600.0, metavar="SECONDS", help="a request that takes longer failed (600)")
    add("--seed", type=int, default=0, help="the same seed is the same requests (0)")
    add("--json", type=Path, metavar="FILE", help="write the result with the keys of vLLM's benchmark")


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; 1 when no request was answered. Raises ConfigError."""
    from headrace.bench.serve import plan as plans
    from headrace.bench.serve.arrivals import Arrivals
    from headrace.bench.serve.client import Target
    from headrace.bench.serve.driver import Driver
    from headrace.bench.serve.lengths import Lengths
    from headrace.bench.serve.models import first_model
    from headrace.bench.serve.records import summarize
    from headrace.bench.serve.report import as_json, text

    target = Target.parse(arguments.url, arguments.endpoint, arguments.api_key)
    arrivals = Arrivals.parse(arguments.rate, arguments.burstiness)
    limits_ms = _limits(arguments.goodput)
    mix = plans.Mix(
        Lengths.parse(arguments.prompt_tokens),
        Lengths.parse(arguments.output_tokens),
        arguments.prefix_tokens,
        arguments.num_prefixes,
        arguments.turns,
        arguments.cancel_ratio,
        arguments.temperature,
    )
    cut = plans.cutter(_tokenizer_file(arguments.tokenizer)) if arguments.tokenizer else plans.cut_words
    conversations = plans.plan(mix, arrivals, arguments.num_requests, arguments.seed, cut)
    model = arguments.model or first_model(target)
    ignore_eos = not arguments.stop_at_eos
    driver = Driver(target, model, mix, arguments.max_concurrency, arguments.timeout, ignore_eos, time.perf_counter)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        records = runner.run(driver.run(conversations))
    summary = summarize(records, limits_ms)
    header = _header(arguments, model, arrivals, driver.most_under_way, limits_ms)
    print(text(header, summary))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_json(header, summary)) + "\n", encoding="utf-8")
    return 0 if summary.count("ok") or summary.count("cancelled") else 1


def _header(
    arguments: argparse.Namespace, model: str, arrivals: Arrivals, most_under_way: int, limits_ms: dict[str, float]
) -> Header:
    from headrace.bench.serve.report import Header

    return Header(
        datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        model,
        f"openai-{arguments.endpoint}" if arguments.endpoint == "chat" else "openai",
        arrivals.rate,
        arrivals.end_rate,
        arrivals.burstiness,
        arguments.max_concurrency,
        arguments.seed,
        most_under_way,
        limits_ms,
    )


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop


def _tokenizer_file(folder: str) -> str:
    from headrace import assets

    file = (assets.path(folder) if folder in assets.names() else Path(folder)) / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"--tokenizer {folder!r}: there is no {file}")
    return str(file)


def _limits(given: list[str]) -> dict[str, float]:
    limits = {}
    for limit in given:
        name, _, number = limit.partition(":")
        try:
            limits[name] = float(number)
        except ValueError:
            limits[name] = 0.0
        if name not in ("ttft", "tpot", "e2el") or not limits[name] > 0:
            raise ConfigError(f"--goodput {limit!r} is not ttft:MS, tpot:MS or e2el:MS with a number above 0")
    return limits
