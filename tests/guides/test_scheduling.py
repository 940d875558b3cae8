"""Guided requests in the scheduler: ends, bans, preemption, continuation and late masks, on the simulated runner."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.engine.plan import PlannedRow, RowResult, Runner, StepPlan, StepResult
from headrace.errors import GuideFailed
from headrace.text.guides import GuideSpec
from tests.engine.simulation import Simulation
from tests.guides.answers import EOS, PERSON, VOCAB_SIZE, make_guided

LETTERS = GuideSpec.regex("[a-z]+[0-9]")


def simulation(**settings: Any) -> Simulation:
    return Simulation(**{"vocab_size": VOCAB_SIZE, **settings})


def text_of(sim: Simulation, tokenizer: Any, name: str) -> str:
    return str(tokenizer.decode([t for t in sim.tokens[name] if t != EOS]))


def run_one(compiler: Any, spec: GuideSpec, **options: Any) -> Simulation:
    sim = simulation()
    sim.scheduler.add(make_guided(sim, compiler, spec, [5, 6, 7], **options))
    return sim.run()


def test_an_end_of_sequence_token_follows_a_complete_answer(compiler, tokenizer):
    sim = run_one(compiler, GuideSpec.choice(["yes", "no"]))
    assert sim.tokens["r0"][-1] == EOS
    assert text_of(sim, tokenizer, "r0") in ("yes", "no")
    assert (sim.ended["r0"].finish_reason, sim.ended["r0"].stop_reason) == ("stop", None)


@pytest.mark.parametrize("options", [{"ignore_eos": True}, {"eos": frozenset()}, {"eos": frozenset({VOCAB_SIZE + 5})}])
def test_without_a_token_that_ends_it_the_guide_does(compiler, tokenizer, options):
    sim = run_one(compiler, GuideSpec.choice(["yes", "no"]), **options)
    assert EOS not in sim.tokens["r0"]
    assert tokenizer.decode(sim.tokens["r0"]) in ("yes", "no")
    assert sim.ended["r0"].finish_reason == "stop"
    assert sim.ended["r0"].new_token_ids == ()


def test_a_stop_token_ends_a_complete_answer_and_no_other(compiler, tokenizer):
    special = 1  # no text: only an end
    sim = run_one(compiler, LETTERS, ignore_eos=True, stop_token_ids=[special], max_tokens=200)
    assert sim.tokens["r0"][-1] == special
    assert sim.ended["r0"].stop_reason == special
    letter = tokenizer.encode("x", add_special_tokens=False)[0]
    sim = run_one(compiler, GuideSpec.regex("x{5}"), stop_token_ids=[letter])
    assert sim.ended["r0"].stop_reason == letter  # text that the caller asked to stop at


def test_a_guide_that_is_complete_before_min_tokens_fails_with_the_numbers(compiler):
    for options in ({}, {"ignore_eos": True}, {"eos": frozenset()}):
        sim = run_one(compiler, GuideSpec.regex("x{3}y"), min_tokens=40, max_tokens=60, **options)
        error = sim.ended["r0"].error
        assert isinstance(error, GuideFailed)
        assert "complete after" in str(error)
        assert "min_tokens=40" in str(error)


def test_min_tokens_makes_a_guide_that_can_go_on_go_on(compiler):
    sim = run_one(compiler, GuideSpec.regex("[a-z]+"), min_tokens=20, max_tokens=200)
    assert len(sim.tokens["r0"]) >= 20


def test_a_guide_that_allows_only_banned_tokens_fails_alone(compiler, tokenizer):
    sim = simulation()
    letters = [t for t in range(VOCAB_SIZE) if "x" in tokenizer.decode([t])]
    sim.scheduler.add(
        make_guided(sim, compiler, GuideSpec.regex("x{9}"), [5], stop_token_ids=letters, min_tokens=5, max_tokens=9)
    )
    sim.add([6, 7], eos=frozenset({EOS}), max_tokens=5)
    sim.run()
    assert "nothing but tokens that are banned" in str(sim.ended["r0"].error)
    assert sim.ended["r1"].error is None


def test_max_tokens_cuts_a_guided_answer_and_says_so(compiler):
    sim = run_one(compiler, GuideSpec.regex("x{100}"), max_tokens=3)
    assert sim.ended["r0"].finish_reason == "length"


def test_an_empty_answer_can_be_complete(compiler):
    sim = run_one(compiler, GuideSpec.choice([""]))
    assert sim.tokens["r0"] == [EOS]
    sim = run_one(compiler, GuideSpec.choice([""]), ignore_eos=True)
    assert sim.tokens["r0"] == []
    assert sim.ended["r0"].finish_reason == "stop"


def _crowd(compiler: Any, sim: Simulation, guided: range = range(0, 12, 2)) -> Simulation:
    for i in range(12):
        options: dict[str, Any] = {"seed": i, "max_tokens": 30, "request_id": f"r{i}"}
        if i in guided:
            sim.scheduler.add(make_guided(sim, compiler, (LETTERS, PERSON)[i % 4 // 2], [5 + i, 6, 7], **options))
        else:
            sim.add([5 + i, 6, 7], eos=frozenset({EOS}), **options)
    return sim


def test_batches_chunks_and_preemptions_do_not_change_a_token(compiler):
    expected = _crowd(compiler, simulation()).run().outputs
    for settings in ({"max_seqs": 1}, {"max_tokens": 3, "max_seqs": 3}, {"block_size": 1}):
        assert _crowd(compiler, simulation(**settings)).run().outputs == expected
    tight = simulation(num_blocks=12, safety_margin=0.0, max_model_len=48)
    assert _crowd(compiler, tight).run().outputs == expected


def test_preempted_answers_go_on_in_their_guides(compiler, monkeypatch):
    monkeypatch.setattr("headrace.engine.scheduler.admission.GROWTH_HORIZON_TOKENS", 0)
    expected = _crowd(compiler, simulation()).run().outputs
    tight = _crowd(compiler, simulation(num_blocks=12, safety_margin=0.0, max_model_len=48)).run()
    assert tight.scheduler.counters.num_preemptions > 0
    assert tight.outputs == expected


def test_guided_neighbours_do_not_change_the_others(compiler):
    mixed = _crowd(compiler, simulation()).run().outputs
    alone = _crowd(compiler, simulation(), guided=range(0)).run().outputs
    assert {name: mixed[name] for name in ("r1", "r3", "r11")} == {name: alone[name] for name in ("r1", "r3", "r11")}


@pytest.mark.parametrize("given", [1, 2, 5])
def test_an_answer_that_was_begun_elsewhere_goes_on_in_its_guide(compiler, given):
    whole = run_one(compiler, PERSON, seed=9, max_tokens=60).outputs["r0"]
    assert len(whole) > given
    sim = simulation()
    request = make_guided(sim, compiler, PERSON, [5, 6, 7], seed=9, max_tokens=60)
    request.output_token_ids.extend(whole[:given])
    request.token_ids.extend(whole[:given])
    sim.scheduler.add(request)
    assert sim.run().outputs["r0"] == whole[given:]


def test_an_answer_that_was_begun_outside_its_guide_fails(compiler):
    sim = simulation()
    request = make_guided(sim, compiler, PERSON, [5, 6, 7])
    request.output_token_ids.append(300)
    request.token_ids.append(300)
    sim.scheduler.add(request)
    sim.run()
    assert "token 300, number 0 of the answer" in str(sim.ended["r0"].error)


class Tardy:
    """A runner whose guided rows are late, each as often as told."""

    def __init__(self, inner: Runner, times: int) -> None:
        self.inner = inner
        self.times = times
        self.seen: dict[tuple[str, int], int] = {}

    @property
    def vocab_size(self) -> int:
        return self.inner.vocab_size

    def execute(self, plan: StepPlan) -> StepResult:
        result = self.inner.execute(plan)
        return StepResult(tuple(self._maybe_late(*pair) for pair in zip(plan.rows, result.rows, strict=True)))

    def _maybe_late(self, row: PlannedRow, outcome: RowResult) -> RowResult:
        if row.sampling is None or row.sampling.guide is None:
            return outcome
        key = (row.request_id, row.sampling.position)
        self.seen[key] = self.seen.get(key, 0) + 1
        return outcome if self.seen[key] > self.times else RowResult(row.request_id, is_late=True)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"max_tokens": 3, "max_seqs": 3}, {"block_size": 1}])
def test_late_masks_slow_their_own_rows_and_change_no_token(compiler, times, settings):
    expected = _crowd(compiler, simulation()).run()
    sim = simulation(**settings)
    sim.runner.inner = Tardy(sim.runner.inner, times)
    _crowd(compiler, sim)
    steps_of_others = 0
    while sim.scheduler.has_requests:
        sim._take(sim.core.step())
        if not {f"r{i}" for i in range(1, 12, 2)} <= sim.ended.keys():
            steps_of_others += 1
    sim.check_empty()
    assert sim.outputs == expected.outputs
    assert sim.scheduler.counters.num_late_masks >= times * 6
    if not settings:
        assert steps_of_others <= 31  # 30 tokens each: nobody waited for the others' masks
