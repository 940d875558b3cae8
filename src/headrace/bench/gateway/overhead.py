"""What a gateway costs: processor time per request, per long prompt and per chunk, added latency, and memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from headrace.bench.gateway import wrk
from headrace.bench.gateway.backend import BackendSettings
from headrace.bench.gateway.client import connect, post
from headrace.bench.gateway.contenders import Contender, Place
from headrace.bench.gateway.processes import Running, free_port, wait_until_answers
from headrace.bench.gateway.stage import start_backend
from headrace.errors import BenchmarkFailed

GATEWAY_CORE, LOAD_CORE = 0, 1
_NUM_REPLICAS = 2
_MANY_REPLICAS = 100
_CONNECTIONS = 32
_LONG_BYTES = 400_000
_NUM_CHUNKS = 100
_NUM_STREAMS = 64

_HELLO = "hello world " * 12
_SYSTEM = "You are a helpful assistant. " * 35
SMALL = f'{{"model":"m","messages":[{{"role":"user","content":"{_HELLO}"}}]}}'
MEDIUM = (
    f'{{"model":"m","messages":[{{"role":"system","content":"{_SYSTEM}"}},{{"role":"user","content":"{_HELLO}"}}]}}'
)
STREAM = SMALL.replace('"m",', '"m","stream":true,')


@dataclass(slots=True)
class Overhead:
    """Of one contender; what was not measured is left out.

    Attributes: figures: by name, in the unit that the name ends with.
    """

    name: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes: seconds: of each part. num_distinct: prompts, all different, before the memory is read; 0: none.
    """

    seconds: float
    num_distinct: int = 0


def measure(contender: Contender, program: str, plan: Plan, folder: Path) -> Overhead:
    """Measure one contender. Raises BenchmarkFailed."""
    result = Overhead(contender.name)
    with _stage(contender, program, folder, BackendSettings(), _NUM_REPLICAS) as (gateway, port):
        small, medium = wrk.same(folder, "small", SMALL), wrk.same(folder, "medium", MEDIUM)
        wrk.run(port, small, _CONNECTIONS, 1, LOAD_CORE)
        if gateway is not None:
            result.figures["rss_start_mb"] = gateway.rss_mb()
        _wrk_part(result, gateway, "json", lambda: wrk.run(port, small, _CONNECTIONS, plan.seconds, LOAD_CORE))
        _wrk_part(result, gateway, "json_1kb", lambda: wrk.run(port, medium, _CONNECTIONS, plan.seconds, LOAD_CORE))
        alone = wrk.run(port, small, 1, max(plan.seconds / 2, 1), LOAD_CORE)
        result.figures["alone_p50_ms"] = alone.p50_ms
        if plan.num_distinct and gateway is not None:
            _fill(result, gateway, port, folder, plan.num_distinct)
    with _stage(contender, program, folder, BackendSettings(), _MANY_REPLICAS) as (gateway, port):
        long = wrk.long(folder, "long", 16, _LONG_BYTES)
        wrk.run(port, long, 4, 1, LOAD_CORE)
        _wrk_part(result, gateway, "long", lambda: wrk.run(port, long, 4, plan.seconds, LOAD_CORE))
    with _stage(contender, program, folder, BackendSettings(num_chunks=_NUM_CHUNKS), _NUM_REPLICAS) as (gateway, port):
        burst = wrk.same(folder, "stream", STREAM)
        _wrk_part(result, gateway, "burst", lambda: wrk.run(port, burst, 16, plan.seconds, LOAD_CORE))
    paced = BackendSettings(num_chunks=_NUM_CHUNKS, chunk_s=0.02, is_resumable=contender.program == "headrace")
    with _stage(contender, program, folder, paced, _NUM_REPLICAS) as (gateway, port):
        cpu_s = gateway.cpu_s() if gateway is not None else 0.0
        num_chunks = asyncio.run(_paced(port, max(plan.seconds, 3.0)))
        if gateway is not None:
            result.figures["paced_chunk_us"] = 1e6 * (gateway.cpu_s() - cpu_s) / num_chunks
            result.figures["rss_end_mb"] = gateway.rss_mb()
    return result


def _wrk_part(result: Overhead, gateway: Running | None, name: str, load: Callable[[], wrk.Load]) -> None:
    cpu_s = gateway.cpu_s() if gateway is not None else 0.0
    seen = load()
    if gateway is not None:
        result.figures[f"{name}_us"] = 1e6 * (gateway.cpu_s() - cpu_s) / seen.num_requests
    result.figures[f"{name}_per_s"] = seen.per_s
    result.figures[f"{name}_p50_ms"] = seen.p50_ms
    if seen.num_errors:
        result.figures[f"{name}_errors"] = seen.num_errors


def _fill(result: Overhead, gateway: Running, port: int, folder: Path, count: int) -> None:
    """Send so many prompts, no two the same, and look at the memory."""
    script, sent = wrk.distinct(folder, "distinct"), 0
    while sent < count:
        sent += wrk.run(port, script, _CONNECTIONS, 10, LOAD_CORE, str(sent)).num_requests
    result.figures["distinct_prompts"] = sent
    result.figures["rss_distinct_mb"] = gateway.rss_mb()


@contextmanager
def _stage(
    contender: Contender, program: str, folder: Path, settings: BackendSettings, num_replicas: int
) -> Iterator[tuple[Running | None, int]]:
    """One backend, under so many addresses, and the contender before it. Gives the gateway and the port to ask."""
    backend, port = start_backend(settings, folder, LOAD_CORE)
    gateway: Running | None = None
    try:
        if program:
            backends = [f"127.0.1.{number + 1}:{port}" for number in range(num_replicas)]
            place = Place(free_port(), backends, folder)
            gateway = Running(contender.argv(program, place), folder / f"{contender.name}.log", GATEWAY_CORE)
            wait_until_answers(gateway, place.port, contender.ready_path)
            time.sleep(1.5)  # the first checks of all replicas are over
            port = place.port
        yield gateway, port
    finally:
        if gateway is not None:
            gateway.stop()
        backend.stop()


async def _paced(port: int, seconds: float) -> int:
    """Read streams side by side for some time; returns the number of events that came."""
    until, request = time.monotonic() + seconds, post(STREAM.encode())

    async def read() -> int:
        connection, count = await connect(port, time.monotonic), 0
        while time.monotonic() < until:
            answer = await connection.ask(request, True, 30.0)
            if answer.failure:
                raise BenchmarkFailed(f"a stream failed: {answer.failure}")
            count += answer.num_events
        connection.close()
        return count

    return sum(await asyncio.gather(*(read() for _ in range(_NUM_STREAMS))))


def as_json(results: list[Overhead]) -> bytes:
    """For a file."""
    return msgspec.json.encode(results)


_COLUMNS = (
    ("json_us", "µs CPU / small JSON"), ("json_per_s", "small JSON / s"), ("json_1kb_us", "µs CPU / 1 kB JSON"),
    ("alone_p50_ms", "p50 ms, 1 client"), ("long_us", "µs CPU / 400 kB, 100 replicas"),
    ("burst_us", "µs CPU / 100-chunk stream"), ("paced_chunk_us", "µs CPU / paced chunk"),
    ("rss_end_mb", "RSS MB"), ("rss_distinct_mb", "RSS MB, 10^6 prompts"),
)  # fmt: skip


def table(results: list[Overhead]) -> str:
    """A row per contender."""
    shown = [(key, title) for key, title in _COLUMNS if any(key in result.figures for result in results)]
    lines = ["| gateway | " + " | ".join(title for _, title in shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for result in results:
        cells = [_cell(result.figures.get(key)) for key, _ in shown]
        lines.append(f"| {result.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.3f}"
