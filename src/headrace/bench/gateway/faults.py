"""What clients see when a replica, or the gateway, fails under load.

Two scripted replicas, eight clients of JSON answers (0.2 s each) and eight of streams (100 events in 2 s), each asking
again as soon as it has its answer. Each client has a prompt of its own, so a policy that routes by prefix keeps it
where it was. The fault comes after three seconds and goes away five seconds later.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from headrace.bench.gateway.backend import FAULT_PATH, WORD, BackendSettings
from headrace.bench.gateway.client import Answer, Connection, connect, post
from headrace.bench.gateway.contenders import Contender, Place
from headrace.bench.gateway.processes import Running, free_port, wait_until_answers
from headrace.bench.gateway.stage import start_backend
from headrace.errors import BenchmarkFailed

FAULTS = ("sigkill", "sigstop", "reset", "truncate", "stall", "hang", "storm", "slow-client", "gateway")

FAULT_S = 3.0
HEALS_AFTER_S = 5.0
LATE_S = 2.0
"""What a request may take longer than undisturbed."""

_JSON_S, _NUM_CHUNKS, _CHUNK_S = 0.2, 100, 0.02
_TIMEOUT_S = 9.0
_NUM_CLIENTS = 8
_WHOLE_TEXT = "".join(WORD % number for number in range(_NUM_CHUNKS))
_FLOOD_EVENTS = 300_000


@dataclass(slots=True)
class Outcome:
    """Of one contender and one fault.

    Attributes:
        good, bad: answers, of each kind; bad ones by reason. num_wrong: streams that ended well with a text that has a
            gap or a word twice. num_late: answers that took 2 s longer than undisturbed, or were silent for so long.
        longest_s: of all answers that were good, beyond the undisturbed time.
        last_bad_s: when the last bad or late request was sent, after the fault. back_s: until the replica answered
            again, after the fault was over. affinity: share of answers by the replica that answered the client before,
            in the last five seconds. rss_mb: of the gateway at the end.
    """

    contender: str
    fault: str
    num_good_json: int = 0
    num_good_streams: int = 0
    bad_json: dict[str, int] = field(default_factory=dict)
    bad_streams: dict[str, int] = field(default_factory=dict)
    num_wrong: int = 0
    num_late: int = 0
    longest_s: float = 0.0
    last_bad_s: float | None = None
    back_s: float | None = None
    affinity: float = 0.0
    rss_mb: float = 0.0


@dataclass(slots=True)
class _Play:
    """Who takes part."""

    contender: Contender
    program: str
    folder: Path
    place: Place
    backends: list[Running]
    settings: list[BackendSettings]
    gateway: Running
    answers: list[tuple[int, Answer]] = field(default_factory=list)
    begun_s: float = 0.0


def measure(contender: Contender, program: str, fault: str, seconds: float, folder: Path) -> Outcome:
    """Play one fault. Raises BenchmarkFailed when something does not start."""
    settings = [
        BackendSettings(
            port=free_port(), name=f"b{number}", json_s=_JSON_S, num_chunks=_NUM_CHUNKS, chunk_s=_CHUNK_S,
            is_resumable=contender.program == "headrace",
        )
        for number in range(2)
    ]  # fmt: skip
    backends: list[Running] = []
    gateway: Running | None = None
    try:
        backends += [start_backend(each, folder, None)[0] for each in settings]
        place = Place(free_port(), [f"127.0.0.1:{each.port}" for each in settings], folder)
        gateway = _start(contender, program, place, folder)
        time.sleep(1.0)
        play = _Play(contender, program, folder, place, backends, settings, gateway)
        asyncio.run(_run(play, fault, seconds))
        outcome = _judge(play, fault)
        outcome.rss_mb = play.gateway.rss_mb()
        gateway = play.gateway
    finally:
        for process in (*backends, *((gateway,) if gateway is not None else ())):
            process.stop()
    return outcome


def _start(contender: Contender, program: str, place: Place, folder: Path) -> Running:
    gateway = Running(contender.argv(program, place), folder / f"{contender.name}.log")
    try:
        wait_until_answers(gateway, place.port, contender.ready_path)
    except BenchmarkFailed:
        gateway.stop()
        raise
    return gateway


# -------------------------------------------------------------------- load


async def _run(play: _Play, fault: str, seconds: float) -> None:
    play.begun_s = time.monotonic()
    until = play.begun_s + seconds
    clients = [asyncio.create_task(_client(play, number, number % 2 == 1, until)) for number in range(2 * _NUM_CLIENTS)]
    await asyncio.sleep(FAULT_S)
    trouble = asyncio.create_task(_trouble(play, fault))
    await asyncio.gather(*clients)
    await trouble


async def _client(play: _Play, number: int, is_stream: bool, until: float) -> None:
    draw = random.Random(number)
    content = f"client {number} " * 100
    body = json.dumps({"model": "m", "stream": is_stream, "messages": [{"role": "user", "content": content}]})
    if not is_stream:
        body = body.replace('"stream": false, ', "")
    request, connection = post(body.encode()), None
    await asyncio.sleep(draw.random() * (2 if is_stream else 0.3))
    while time.monotonic() < until:
        begun_s = time.monotonic()
        try:
            if connection is None or not connection.is_open:
                connection = await connect(play.place.port, time.monotonic)
            answer = await connection.ask(request, is_stream, _TIMEOUT_S)
        except OSError as error:
            answer = Answer(begun_s, is_stream, end_s=time.monotonic(), failure=str(error.strerror or error))
        play.answers.append((number, answer))
        await asyncio.sleep(draw.random() * 0.05 if not answer.failure else 0.05)
    if connection is not None and connection.is_open:
        connection.close()


# -------------------------------------------------------------------- faults


async def _trouble(play: _Play, fault: str) -> None:
    """Let the fault begin, and end."""
    victim, settings = play.backends[0], play.settings[0]
    if fault == "gateway":
        play.gateway.signal(signal.SIGKILL)
        play.gateway.stop()
        play.gateway = await asyncio.to_thread(_start, play.contender, play.program, play.place, play.folder)
    elif fault == "slow-client":
        await _slow_clients(play)
    elif fault == "sigkill":
        victim.signal(signal.SIGKILL)
        await asyncio.sleep(HEALS_AFTER_S)
        play.backends[0], _ = await asyncio.to_thread(start_backend, settings, play.folder, None)
    elif fault == "sigstop":
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(HEALS_AFTER_S)
        victim.signal(signal.SIGCONT)
    else:
        await asyncio.to_thread(_switch, settings.port, fault)
        await asyncio.sleep(HEALS_AFTER_S)
        await asyncio.to_thread(_switch, settings.port, "none")


def _switch(port: int, fault: str) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", f"{FAULT_PATH.decode()}{fault}", body=b"")
        connection.getresponse().read()
    finally:
        connection.close()


async def _slow_clients(play: _Play) -> None:
    """Four that ask for more than any buffer holds, and read nothing."""
    body = json.dumps({"model": "m", "stream": True, "flood": _FLOOD_EVENTS, "messages": []}).encode()
    connections: list[Connection] = [await connect(play.place.port, time.monotonic) for _ in range(4)]
    tasks = [asyncio.create_task(connection.ask(post(body), True, 60.0)) for connection in connections]
    await asyncio.sleep(0)
    for connection in connections:
        connection.pause()
    await asyncio.sleep(HEALS_AFTER_S)
    for connection in connections:
        connection.close()
    with suppress(Exception):
        await asyncio.gather(*tasks)


# -------------------------------------------------------------------- what came of it


def _judge(play: _Play, fault: str) -> Outcome:
    outcome = Outcome(play.contender.name, fault)
    fault_s = play.begun_s + FAULT_S
    bad: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for _, answer in play.answers:
        extra_s = answer.end_s - answer.begun_s - (_NUM_CHUNKS * _CHUNK_S if answer.is_stream else _JSON_S)
        is_late = extra_s > LATE_S or answer.gap_s > LATE_S
        if answer.failure:
            bad[answer.is_stream][answer.failure] += 1
        elif answer.is_stream and answer.text != _WHOLE_TEXT:
            outcome.num_wrong += 1
        elif answer.is_stream:
            outcome.num_good_streams += 1
        else:
            outcome.num_good_json += 1
        if not answer.failure:
            outcome.num_late += is_late
            outcome.longest_s = max(outcome.longest_s, extra_s)
        if (answer.failure or is_late) and answer.end_s > fault_s:
            outcome.last_bad_s = max(outcome.last_bad_s or 0.0, answer.begun_s - fault_s)
    outcome.bad_json, outcome.bad_streams = dict(bad[False]), dict(bad[True])
    healed_s = fault_s + HEALS_AFTER_S
    if fault not in ("gateway", "slow-client"):
        name = play.settings[0].name
        again = [a.first_s for _, a in play.answers if a.backend == name and not a.failure and a.begun_s > healed_s]
        outcome.back_s = min((first_s for first_s in again if first_s is not None), default=None)
        if outcome.back_s is not None:
            outcome.back_s -= healed_s
    outcome.affinity = _affinity(play.answers, healed_s)
    return outcome


def _affinity(answers: list[tuple[int, Answer]], since_s: float) -> float:
    """How often a client was answered by the replica that answered it before."""
    last: dict[int, str] = {}
    same: list[bool] = []
    for number, answer in sorted(answers, key=lambda pair: pair[1].begun_s):
        if answer.failure or not answer.backend:
            continue
        if answer.begun_s > since_s and number in last:
            same.append(last[number] == answer.backend)
        last[number] = answer.backend
    return statistics.fmean(same) if same else 0.0


def as_json(outcomes: list[Outcome]) -> str:
    """For a file."""
    return json.dumps([asdict(outcome) for outcome in outcomes], indent=1)


_ROWS: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
    ("good JSON", lambda o: str(o.num_good_json)),
    ("bad JSON", lambda o: str(sum(o.bad_json.values()))),
    ("good streams", lambda o: str(o.num_good_streams)),
    ("cut streams", lambda o: str(sum(o.bad_streams.values()))),
    ("wrong text", lambda o: str(o.num_wrong)),
    ("late (> 2 s)", lambda o: str(o.num_late)),
    ("longest extra s", lambda o: f"{o.longest_s:.2f}"),
    ("last bad sent, s after", lambda o: "–" if o.last_bad_s is None else f"{o.last_bad_s:.1f}"),
    ("back, s after healing", lambda o: "–" if o.back_s is None else f"{o.back_s:.1f}"),
    ("same replica again", lambda o: f"{100 * o.affinity:.0f} %"),
    ("RSS MB", lambda o: f"{o.rss_mb:.0f}"),
)


def table(outcomes: list[Outcome]) -> str:
    """A row per fault and contender."""
    lines = ["| fault | gateway | " + " | ".join(title for title, _ in _ROWS) + " |", "|---" * (len(_ROWS) + 2) + "|"]
    for outcome in outcomes:
        cells = [show(outcome) for _, show in _ROWS]
        lines.append(f"| {outcome.fault} | {outcome.contender} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
