"""headrace serve beside `transformers serve`, the same model and requests, alternating in one run.

python benchmarks/beside_transformers_serve.py --python PATH [--shape S] [--dtype bf16] [--levels 1,8,32] [--repeats 2]

PATH is an interpreter that has transformers[serving]. Prompts of 16..256 and answers of 16..128 tokens (the lengths of
W1), streamed, greedy, three to each client but at most 32 in all; another seed each time, so that nothing is cached.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from headrace.bench.serve.client import Pool, Target
from headrace.bench.serve.records import Record, Summary, summarize
from headrace.bench.shapes import model_folder, shape
from headrace.bench.workloads import Request, workload

_START_TIMEOUT_S = 120.0
_TRANSFORMERS = "from transformers.cli.transformers import main; main()"


class Served:
    """A server that computes only while it is asked something: otherwise its processes are stopped."""

    def __init__(self, name: str, command: Sequence[str], model: str, port: int, log: Path) -> None:
        """Start it, and wait until it answers."""
        self.name, self._model, self._url = name, model, f"http://127.0.0.1:{port}"
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        with log.open("wb") as sink:
            self._process = subprocess.Popen(command, env=environment, stderr=sink, stdout=sink, process_group=0)
        begin = time.perf_counter()
        while True:
            try:
                urllib.request.urlopen(f"{self._url}/health", timeout=5).read()
                break
            except OSError:
                if self._process.poll() is not None or time.perf_counter() - begin > _START_TIMEOUT_S:
                    raise SystemExit(f"{name} does not serve:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.1)
        self._signal(signal.SIGSTOP)

    def run(self, requests: Sequence[Request], num_clients: int) -> Summary:
        """A closed loop of clients."""
        self._signal(signal.SIGCONT)
        try:
            return summarize(asyncio.run(self._run(requests, num_clients)), {})
        finally:
            self._signal(signal.SIGSTOP)

    async def _run(self, requests: Sequence[Request], num_clients: int) -> list[Record]:
        begin = time.perf_counter()

        def clock() -> float:
            return time.perf_counter() - begin

        pool = Pool(Target.parse(self._url, "completions", None), clock)
        waiting, records = list(requests), []

        async def client() -> None:
            while waiting:
                request = waiting.pop(0)
                records.append(record := Record(clock(), clock()))
                await pool.ask(self._body(request), record, None)
                record.num_output_tokens = len(record.event_s)  # transformers tells no usage; it sends a token an event
                if record.num_output_tokens != request.max_tokens:
                    raise SystemExit(f"{self.name}: {record.num_output_tokens} of {request.max_tokens}; {record.error}")
                record.outcome = "ok"  # its streams end without [DONE]

        await asyncio.gather(*(client() for _ in range(num_clients)))
        pool.close()
        return records

    def _body(self, request: Request) -> dict[str, object]:
        text = " ".join(f"t{token}" for token in request.prompt_token_ids)  # the words of the bench's tokenizer
        return {
            "model": self._model,
            "prompt": text,
            "max_tokens": request.max_tokens,
            "temperature": 0,
            "stream": True,
        }

    def stop(self) -> None:
        """End it and all that it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _servers(folder: Path, dtype: str, python: Path, logs: Path) -> list[Served]:
    ports = [_free_port() for _ in range(3)]
    own = [sys.executable, "-m", "headrace.cli.main", "serve", str(folder), "--dtype", dtype]
    peer = [str(python), "-c", _TRANSFORMERS, "serve", str(folder), "--dtype", dtype]
    peer += ["--device", "cpu"]
    # Without these it takes 0.9 of the memory for its cache, and did not answer within 20 s.
    batching = ["--continuous-batching", "--cb-num-blocks", "600", "--cb-block-size", "32"]
    batching += ["--cb-max-batch-tokens", "512"]
    name = str(folder)
    return [
        Served("headrace", [*own, "--port", str(ports[0]), "--served-model-name", name], name, ports[0], logs / "0"),
        Served("transformers serve", [*peer, "--port", str(ports[1])], name, ports[1], logs / "1"),
        Served("… --continuous-batching", [*peer, *batching, "--port", str(ports[2])], name, ports[2], logs / "2"),
    ]


def _row(name: str, level: int, found: Sequence[Summary], base: Sequence[Summary]) -> str:
    def rate(summary: Summary) -> float:
        return summary.num_output_tokens / summary.duration_s

    def middle(metric: str, summaries: Sequence[Summary]) -> float:
        return median(summary.spreads[metric].median_ms for summary in summaries)

    ratio = median(rate(own) / rate(other) for own, other in zip(base, found, strict=True))
    cells = [f"{median(map(rate, found)):,.1f}", *(f"{middle(metric, found):,.1f}" for metric in ("ttft", "itl"))]
    return f"| {level} | {name} | {' | '.join(cells)} | {ratio:.1f} × |"


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--shape", default="S")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--levels", default="1,8,32")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--model-dir", type=Path, default=Path("~/.cache/headrace/bench").expanduser())
    arguments = parser.parse_args()
    levels = [int(level) for level in arguments.levels.split(",")]
    folder = model_folder(shape(arguments.shape), arguments.dtype, arguments.model_dir)
    found: dict[tuple[int, str], list[Summary]] = {}
    with tempfile.TemporaryDirectory() as logs:
        servers = _servers(folder, arguments.dtype, arguments.python, Path(logs))
        try:
            for repeat in range(arguments.repeats + 1):  # the first warms up
                for level in levels if repeat else levels[-1:]:
                    requests = workload("W1", seed=1000 * repeat + level).requests[: min(3 * level, 32)]
                    for server in servers if repeat % 2 else servers[::-1]:
                        summary = server.run(requests, level)
                        if repeat:
                            found.setdefault((level, server.name), []).append(summary)
                        print(server.name, level, f"{summary.duration_s:.1f} s", file=sys.stderr)
        finally:
            for server in servers:
                server.stop()
    print("| clients | server | tok/s | TTFT ms, p50 | ITL ms, p50 | headrace is |\n|---|---|---|---|---|---|")
    for (level, name), summaries in found.items():
        print(_row(name, level, summaries, found[level, "headrace"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
