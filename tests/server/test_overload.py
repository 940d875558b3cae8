"""When the queue says no: bounds, rates, and what is left of the throughput at twice the load."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest

from headrace.engine.remote.building import build
from headrace.engine.remote.spec import EngineSpec, SimulatedSpec
from headrace.engine.runner.simulated import VirtualClock
from headrace.errors import InvalidRequest, QueueFull
from headrace.server.overload import DrainRate, EngineRoom, QueueLimits, WaitingLine


def room(seqs: int = 4, free_tokens: int = 1000, waiting: int = 0) -> EngineRoom:
    return EngineRoom(seqs, free_tokens, waiting, 1000)


def backlogged(line: WaitingLine, per_s: float, now_s: float = 0.0, seqs: int = 4) -> float:
    """Fill the places, let one wait, and start and end some at a rate; returns the time then."""
    for _ in range(seqs + 1):
        line.admit(1, 10, room(seqs), now_s)
    for _ in range(seqs):
        line.start(10, room(seqs), now_s)
    for _ in range(40):
        now_s += 1 / per_s
        line.end_running()
        line.admit(1, 10, room(seqs), now_s)
        line.start(10, room(seqs), now_s)
    return now_s


def test_what_fits_the_engine_is_not_a_queue() -> None:
    line = WaitingLine(QueueLimits(max_requests=2))
    for _ in range(6):
        line.admit(1, 10, room(), 0.0)
    assert line.num_queued(room()) == 2
    with pytest.raises(QueueFull, match="2 requests wait, 1 more would be over max_queue_size=2"):
        line.admit(1, 10, room(), 0.0)


def test_the_engine_knows_of_waiting_that_places_do_not_show() -> None:
    line = WaitingLine(QueueLimits(max_requests=2))
    for _ in range(3):
        line.admit(1, 10, room(seqs=100), 0.0)
    assert line.num_queued(room(seqs=100)) == 0
    with pytest.raises(QueueFull):
        line.admit(1, 10, room(seqs=100, waiting=3), 0.0)  # blocks are short, not places


def test_tokens_are_bounded() -> None:
    line = WaitingLine(QueueLimits(max_tokens=500))
    line.admit(1, 800, room(), 0.0)
    line.admit(1, 400, room(), 0.0)
    assert line.num_queued_tokens(room()) == 200
    with pytest.raises(QueueFull, match="200 prompt tokens wait, 301 more would be over max_queue_tokens=500"):
        line.admit(1, 301, room(), 0.0)
    line.admit(1, 300, room(), 0.0)


def test_an_empty_queue_takes_whatever_comes() -> None:
    line = WaitingLine(QueueLimits(max_requests=1, max_tokens=1))
    line.admit(4, 10_000, room(), 0.0)
    assert line.num_pending == 4


def test_a_request_that_could_never_be_let_in_is_wrong() -> None:
    line = WaitingLine(QueueLimits(max_requests=3))
    with pytest.raises(InvalidRequest, match="8 answers at once; 7 are the most"):
        line.admit(8, 10, room(), 0.0)


def test_books() -> None:
    line = WaitingLine(QueueLimits())
    line.admit(3, 30, room(), 0.0)
    line.start(10, room(), 0.1)
    line.end_pending(10)
    assert (line.num_pending, line.num_pending_tokens, line.num_running) == (1, 10, 1)
    line.end_running()
    line.end_pending(10)
    assert (line.num_pending, line.num_pending_tokens, line.num_running) == (0, 0, 0)


def test_retry_after_is_when_there_will_be_room() -> None:
    line = WaitingLine(QueueLimits(max_requests=1))
    now_s = backlogged(line, per_s=0.5)
    assert line.rate.per_second == pytest.approx(0.5, rel=0.1)
    with pytest.raises(QueueFull) as refused:
        line.admit(3, 30, room(), now_s)
    assert refused.value.retry_after_s == pytest.approx(3 / 0.5, abs=1)


def test_a_wait_over_the_limit_is_foretold() -> None:
    line = WaitingLine(QueueLimits(max_wait_s=10.0))
    now_s = backlogged(line, per_s=1.0)
    for _ in range(9):
        line.admit(1, 10, room(), now_s)
    with pytest.raises(QueueFull, match=r"would wait 1\d s, over the limit of 10 s"):
        line.admit(1, 10, room(), now_s)


def test_nothing_is_foretold_before_anything_was_measured() -> None:
    line = WaitingLine(QueueLimits(max_wait_s=1.0))
    for _ in range(100):
        line.admit(1, 10, room(), 0.0)
    assert line.rate.per_second is None


def test_low_load_says_nothing_of_what_could_be() -> None:
    rate = DrainRate()
    for second in range(100):
        rate.observe(float(second), backlogged=False)
        rate.start()
    assert rate.per_second is None


def test_an_engine_that_stands_still_is_noticed() -> None:
    line = WaitingLine(QueueLimits(max_wait_s=10.0))
    now_s = backlogged(line, per_s=10.0)
    before = line.rate.per_second
    line.observe(room(), now_s + 60)
    after = line.rate.per_second
    assert before is not None
    assert after is not None
    assert after < before / 5


# ---------------------------------------------------------------- the whole, on a virtual clock

STEP_S, TOKEN_S, KV_TOKEN_S = 0.02, 0.0002, 2e-6
SEQS = 16
IN_TIME_S = 20.0


def goodput(load_per_s: float, limits: QueueLimits, seconds: float, seed: int = 7) -> float:
    """Answers per second that were whole within IN_TIME_S of their arrival, at a Poisson load."""
    clock = VirtualClock()
    core = _core(clock)
    line = WaitingLine(limits)
    arrivals = _arrivals(load_per_s, seconds, random.Random(seed))
    good, arrived, first = 0, {}, {}
    while arrivals or core.scheduler.has_requests:
        while arrivals and arrivals[0][0] <= clock():
            at, make = arrivals.popleft()
            request = make(len(arrived))
            try:
                line.admit(1, request.num_prompt_tokens, _room(core), clock())
            except QueueFull:
                continue
            arrived[request.request_id] = at
            request.arrival_s, request.queue_timeout_s = at, limits.max_wait_s
            core.scheduler.add(request)
        if not core.scheduler.has_requests:
            clock.sleep(max(arrivals[0][0] - clock(), 0.0))
            continue
        for output in core.step():
            name = output.request_id
            if output.new_token_ids and name not in first:
                first[name] = clock()
                line.start(100, _room(core), clock())
            if output.finished:
                _ = line.end_running() if name in first else line.end_pending(100)
                good += output.finish_reason == "length" and clock() - arrived[name] <= IN_TIME_S
    assert (line.num_pending, line.num_running) == (0, 0)
    return good / seconds


def _core(clock: VirtualClock):
    from headrace.engine.core import EngineCore
    from headrace.engine.runner.simulated import CostModel, SimulatedRunner

    built = build(EngineSpec(model="none", simulated=SimulatedSpec(num_blocks=2000, vocab_size=50)), clock)
    scheduler = built.core.scheduler
    scheduler.limits = type(scheduler.limits)(512, SEQS)
    runner = SimulatedRunner(50, CostModel(STEP_S, TOKEN_S, KV_TOKEN_S), clock.sleep)
    return EngineCore(scheduler, runner, clock)


def _room(core) -> EngineRoom:
    free = (2000 - core.scheduler.cache.pools[0].num_used) * core.scheduler.cache.block_size
    return EngineRoom(SEQS, free, core.scheduler.num_waiting, 64_000)


def _arrivals(load_per_s: float, seconds: float, chance: random.Random) -> deque:
    from headrace.engine.request import Request
    from headrace.engine.sampling_params import SamplingParams

    def maker(prompt: list[int], length: int) -> Callable[[int], Request]:
        params = SamplingParams(max_tokens=length, ignore_eos=True)
        return lambda number: Request(f"r{number}", prompt, params, number, frozenset(), 8000, 0.0)

    found, now = deque(), 0.0
    while now < seconds:
        now += chance.expovariate(load_per_s)
        found.append((now, maker([chance.randrange(50) for _ in range(100)], chance.randint(20, 180))))
    return found


@pytest.mark.slow
def test_goodput_at_twice_the_load_stays_at_its_peak() -> None:
    limits = QueueLimits(max_requests=1024, max_tokens=None, max_wait_s=12.0)
    loads = (4.0, 5.0, 6.0, 7.0)
    found = {load: goodput(load, limits, 150.0) for load in loads}
    peak = max(found.values())
    sustainable = min(load for load in loads if found[load] >= 0.97 * peak)
    assert goodput(2 * sustainable, limits, 150.0) >= 0.95 * peak, found
    assert goodput(4 * sustainable, limits, 100.0) >= 0.95 * peak, found


@pytest.mark.slow
def test_without_the_bound_it_would_fall() -> None:
    """The figure above is the queue's doing: a queue without a bound finishes nearly nothing in time."""
    assert goodput(14.0, QueueLimits(), 100.0) < 0.5 * goodput(14.0, QueueLimits(max_wait_s=12.0), 100.0)
