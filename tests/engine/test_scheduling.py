"""Workloads with known answers: sharing, pressure, order, fairness, and what a step costs."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from headrace.engine.cache.groups import CacheGroup
from headrace.engine.request import RequestStatus
from headrace.engine.runner.simulated import CostModel
from headrace.errors import InvalidRequest
from tests.engine.simulation import FULL, Simulation

WINDOWED = (FULL, CacheGroup((1,), 1, window=64))


def _tokens(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(1, 50) for _ in range(count)]


@pytest.mark.parametrize("policy", ["fifo", "prefill_first"])
@pytest.mark.parametrize("groups", [(FULL,), WINDOWED], ids=["full", "windowed"])
def test_a_prefix_shared_by_32_is_computed_once_when_they_arrive_together(groups, policy):
    prefix = _tokens(0, 192)
    outputs = {}
    for caching in (True, False):
        simulation = Simulation(
            groups=groups, num_blocks=1000, block_size=32, max_tokens=512, max_seqs=64, policy=policy,
            prefix_caching=caching,
        )  # fmt: skip
        for i in range(32):
            simulation.add([*prefix, *_tokens(i + 1, 32)], max_tokens=32, ignore_eos=True)
        simulation.run()
        counters = simulation.scheduler.counters
        prompts = 192 + 32 * 32 if caching else 32 * 224
        assert counters.num_computed_tokens == prompts + 32 * 31  # the last token of each needs no step
        assert counters.num_cached_tokens == (31 * 192 if caching else 0)
        assert counters.prefix_hit_ratio == pytest.approx(31 * 192 / (32 * 224) if caching else 0)
        outputs[caching] = simulation.outputs
        cached = [output.num_cached_tokens for output in simulation.ended.values()]
        assert sorted(cached) == ([0] + [192] * 31 if caching else [0] * 32)
    assert outputs[True] == outputs[False]


@pytest.mark.parametrize("policy", ["fifo", "prefill_first"])
@pytest.mark.parametrize(
    ("count", "prompt", "output"),
    [
        pytest.param(64, (16, 256), (16, 128), id="W1"),
        pytest.param(64, (16, 64), (200, 400), id="middling outputs"),
        pytest.param(64, (16, 64), (500, 1000), id="long outputs"),
        pytest.param(256, (100, 1024), (100, 1024), id="offline256", marks=pytest.mark.slow),
    ],
)
def test_a_quarter_of_the_cache_finishes_everything_and_recomputes_little(count, prompt, output, policy):
    rng = random.Random(0)
    sizes = [(rng.randint(*prompt), rng.randint(*output)) for _ in range(count)]
    block_size = 32
    demand = sum(-(-(p + o) // block_size) for p, o in sizes)
    simulation = Simulation(
        num_blocks=demand // 4, block_size=block_size, max_tokens=512, max_seqs=64, policy=policy, checking=False
    )
    for i, (num_prompt, num_output) in enumerate(sizes):
        simulation.add(_tokens(i, num_prompt), max_tokens=num_output, ignore_eos=True)
    simulation.run()
    counters = simulation.scheduler.counters
    assert [len(tokens) for tokens in simulation.outputs.values()] == [o for _, o in sizes]
    assert counters.num_recomputed_tokens < 0.3 * counters.num_computed_tokens
    # Not at the price of concurrency: a quarter of the memory takes a few times the steps that all of it would.
    assert counters.num_steps < 8 * max(o for _, o in sizes) * max(1, count // 64)


def test_recomputed_tokens_are_exactly_those_that_were_computed_twice():
    simulation = Simulation(num_blocks=100, block_size=4, max_tokens=32, max_seqs=8, safety_margin=0.0)
    sizes = [(10 + i, 300 - 10 * i) for i in range(8)]
    for i, (num_prompt, num_output) in enumerate(sizes):
        simulation.add(_tokens(i, num_prompt), max_tokens=num_output, ignore_eos=True)
    simulation.run()
    counters = simulation.scheduler.counters
    once = sum(p + o - 1 for p, o in sizes)
    assert counters.num_preemptions > 0
    assert counters.num_computed_tokens == once + counters.num_recomputed_tokens


@pytest.mark.parametrize("policy", ["fifo", "prefill_first"])
def test_nobody_starves_under_a_stream_of_short_requests(policy):
    """A request that needs most of the cache gets its turn, however many short ones keep coming."""
    simulation = Simulation(num_blocks=40, block_size=4, max_tokens=32, max_seqs=8, policy=policy)
    for i in range(8):
        simulation.add(_tokens(i, 12), max_tokens=20, ignore_eos=True)
    large = simulation.add(_tokens(99, 120), max_tokens=30, ignore_eos=True)
    for i in range(400):
        if i % 2:
            simulation.add(_tokens(1000 + i, 12), max_tokens=20, ignore_eos=True)
        simulation.step()
        if large.finish_reason:
            break
    assert large.finish_reason == "length"
    simulation.run()


def test_a_sliding_window_costs_no_concurrency_for_tokens_that_it_will_have_dropped():
    """Prompts far longer than the window hold a window's worth of blocks, and are admitted for as much."""
    window = CacheGroup((0,), 1, window=32)
    simulation = Simulation(groups=(window,), num_blocks=8 * window.max_blocks(2000, 64, 16), block_size=16, max_seqs=8)
    for i in range(8):
        simulation.add(_tokens(i, 1500), max_tokens=200, ignore_eos=True)
    most_running = 0
    while simulation.scheduler.has_requests:
        simulation.step()
        most_running = max(most_running, simulation.scheduler.num_running)
    assert most_running == 8
    assert simulation.scheduler.counters.num_preemptions == 0


def test_a_decode_is_not_held_up_by_a_long_prompt():
    simulation = Simulation(block_size=16, max_tokens=64, num_blocks=1000)
    first = simulation.add([1, 2, 3], max_tokens=100, ignore_eos=True)
    simulation.step()
    simulation.add(_tokens(1, 2000), max_tokens=1)
    for i in range(20):
        simulation.step()
        assert len(first.output_token_ids) == i + 2


def test_prefill_first_finishes_a_begun_prompt_before_it_decodes():
    simulation = Simulation(block_size=16, max_tokens=64, num_blocks=1000, policy="prefill_first")
    first = simulation.add([1, 2, 3], max_tokens=100, ignore_eos=True)
    simulation.step()
    second = simulation.add(_tokens(1, 64 * 5), max_tokens=5, ignore_eos=True)
    for _ in range(6):
        simulation.step()
    assert len(first.output_token_ids) < 4
    assert len(second.output_token_ids) >= 1


def test_who_awaits_a_prefix_does_not_hold_up_those_behind():
    simulation = Simulation(block_size=4, max_tokens=200)
    simulation.add(_tokens(0, 100), max_tokens=2, ignore_eos=True)
    awaiting = simulation.add([*_tokens(0, 100), 7], max_tokens=2, ignore_eos=True)
    behind = simulation.add([9], max_tokens=2, ignore_eos=True)
    simulation.step()
    assert (len(behind.output_token_ids), awaiting.scheduled_s) == (1, None)
    simulation.run()
    assert awaiting.num_cached_tokens == 100


@pytest.mark.parametrize("policy", ["fifo", "prefill_first"])
@pytest.mark.parametrize("seed", range(4))
def test_many_preemptions_keep_their_books(policy, seed, monkeypatch):
    monkeypatch.setattr("headrace.engine.scheduler.admission.GROWTH_HORIZON_TOKENS", 0)
    rng = random.Random(seed)
    simulation = Simulation(
        num_blocks=60, block_size=2, max_tokens=16, max_seqs=8, policy=policy, safety_margin=0.0,
        prefix_caching=bool(seed % 2),
    )  # fmt: skip
    for i in range(24):
        simulation.add(_tokens(i, rng.randint(1, 40)), max_tokens=rng.randint(10, 60), ignore_eos=True)
    simulation.run()
    simulation.check_tokens()
    assert simulation.scheduler.counters.num_preemptions > 5


def test_requests_start_in_the_order_of_arrival():
    simulation = Simulation(max_seqs=2, block_size=16)
    for i in range(10):
        simulation.add(_tokens(i, 10), max_tokens=5, ignore_eos=True)
    simulation.run()
    started = [simulation.requests[f"r{i}"].scheduled_s for i in range(10)]
    assert started == sorted(started)


def test_a_live_id_is_taken_and_an_ended_one_is_free():
    simulation = Simulation()
    simulation.add([1], request_id="a", max_tokens=3)
    with pytest.raises(InvalidRequest, match="'a' is taken"):
        simulation.add([1], request_id="a", max_tokens=3)


def test_the_life_cycle_of_a_prompt_that_is_cut():
    """Within a step and between steps, under the names of the field's manager."""
    simulation = Simulation(block_size=4, max_tokens=8)
    seen = []
    request = simulation.add(_tokens(0, 20), max_tokens=3, ignore_eos=True)
    simulation.runner.before_step = lambda plan: seen.append(request.status.name)

    def between() -> str:
        state = simulation.core.dump_state()
        return next(r["status"] for r in [*state["running"], *state["waiting"]])

    dumped = [between()]
    while simulation.scheduler.has_requests:
        simulation.step()
        if simulation.scheduler.has_requests:
            dumped.append(between())
    assert seen == ["PREFILLING_SPLIT", "PREFILLING_SPLIT", "PREFILLING", "DECODING", "DECODING"]
    assert dumped == ["PENDING", "SPLIT_PENDING_REMAINDER", "SPLIT_PENDING_REMAINDER", "DECODING", "DECODING"]
    assert request.status is RequestStatus.FINISHED


def test_the_dump_describes_every_request_and_every_block():
    simulation = Simulation(block_size=4, max_tokens=8, max_seqs=1, num_blocks=10)
    simulation.add(_tokens(0, 20), max_tokens=3)
    simulation.add([1], max_tokens=3)
    simulation.step()
    state = simulation.core.dump_state()
    (running,), (waiting,) = state["running"], state["waiting"]
    assert (running["request_id"], running["num_computed_tokens"], running["num_prompt_tokens"]) == ("r0", 8, 20)
    assert len(running["block_tables"][0]) == 2
    assert (waiting["request_id"], waiting["block_tables"]) == ("r1", [])
    (pool,) = state["cache"]["pools"]
    assert (pool["total"], pool["used"], pool["cached"] + pool["blank"]) == (10, 2, 8)
    assert state["last_step"]["num_tokens"] == 8


def test_timing_follows_the_clock():
    simulation = Simulation(block_size=4, max_tokens=8, max_seqs=1, cost=CostModel(step_s=1.0))
    simulation.add(_tokens(0, 16), max_tokens=3, ignore_eos=True)
    simulation.add(_tokens(1, 8), max_tokens=2, ignore_eos=True)
    simulation.run()
    first, second = (simulation.ended[name].timing for name in ("r0", "r1"))
    assert (first.queued_s, first.prefill_s, first.ttft_s, first.e2e_s) == (0, 2, 2, 4)
    assert (second.queued_s, second.prefill_s, second.ttft_s, second.e2e_s) == (4, 1, 5, 6)


def test_the_cost_model_adds_up():
    simulation = Simulation(block_size=4, cost=CostModel(step_s=10.0, token_s=1.0, kv_token_s=0.01))
    simulation.add([1] * 5, max_tokens=2, ignore_eos=True)
    simulation.add([2] * 7, max_tokens=2, ignore_eos=True)
    simulation.step()
    assert simulation.clock() == pytest.approx(10 + 12 + 0.12)
    simulation.step()
    assert simulation.clock() == pytest.approx(10 + 12 + 0.12 + 10 + 2 + 0.14)


def test_ten_thousand_requests_wait_without_slowing_the_steps():
    """Scheduling stays under a millisecond a step at 64 requests, however many wait."""
    simulation = Simulation(num_blocks=4000, block_size=32, max_tokens=512, max_seqs=64, checking=False)
    for i in range(10_000):
        simulation.add([1 + i % 40, 2, 3, 1 + i % 7], max_tokens=2, ignore_eos=True)
    begin = time.process_time()
    simulation.run()
    seconds = time.process_time() - begin
    assert len(simulation.ended) == 10_000
    assert simulation.scheduler.counters.num_steps < 10_000 / 64 * 2 * 1.1
    assert seconds / simulation.scheduler.counters.num_steps < 0.01  # generous: for a machine that does other things


def test_cancelling_ten_thousand_that_wait_is_quick():
    simulation = Simulation()
    for i in range(10_000):
        simulation.add([1 + i % 40], max_tokens=4)
    begin = time.process_time()
    for i in reversed(range(10_000)):
        simulation.cancel(f"r{i}")
    assert time.process_time() - begin < 2
    simulation.check_empty()


def test_neither_the_scheduler_nor_the_simulated_runner_imports_torch():
    code = (
        "import headrace.engine.core, headrace.engine.scheduler, headrace.engine.runner.simulated, sys;"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
