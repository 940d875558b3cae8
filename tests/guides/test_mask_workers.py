"""Masks beside the forward pass: complete, failed and late rows, and steps that are executed again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from headrace.engine.guidance import allowed_tokens
from headrace.engine.plan import PlannedRow, RowGuide, SamplingRow
from headrace.engine.runner.mask_workers import MaskWorkers
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import GuideFailed
from headrace.text.guides import Guide, GuideMask, GuideSpec
from tests.guides.answers import EOS, PERSON, VOCAB_SIZE, random_answer


class SlowGuide(Guide):
    """Waits at a gate before it answers; counts how often it was asked."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.num_asked = 0

    def mask(self, output_token_ids: Sequence[int], num_tokens: int | None = None) -> GuideMask:
        self.num_asked += 1
        assert self.gate.wait(30)
        return GuideMask(np.array([1 << 5] + [0] * 13, dtype=np.uint32), False)


class BrokenGuide(Guide):
    def __init__(self) -> None:
        pass

    def mask(self, output_token_ids: Sequence[int], num_tokens: int | None = None) -> GuideMask:
        raise KeyError("broken")


@pytest.fixture
def workers() -> Iterator[MaskWorkers]:
    workers = MaskWorkers(VOCAB_SIZE, patience_s=5.0)
    yield workers
    workers.close()


@pytest.fixture
def impatient() -> Iterator[MaskWorkers]:
    workers = MaskWorkers(VOCAB_SIZE, patience_s=0.0)
    yield workers
    workers.close()


def row(guide: Guide | None, output: Sequence[int] = (), ends: Sequence[int] = (EOS,)) -> PlannedRow:
    asked = None if guide is None else RowGuide(guide, ends, (EOS,))
    sampling = SamplingRow(SamplingParams(), 0, 3 + len(output), [5, 6, 7], output, (), asked)
    return PlannedRow("r", [7], 2, ([0],), sampling)


def test_rows_without_guides_start_no_thread(workers):
    before = threading.active_count()
    batch = workers.begin([row(None), row(None)])
    assert workers.collect(batch, others=True) == {}
    assert threading.active_count() == before


def test_each_guided_row_gets_its_own(workers, compiler):
    guide = compiler.compile(PERSON)
    tokens, _ = random_answer(guide.copy(), 1)
    done = compiler.compile(GuideSpec.choice(["yes"]))
    answer, _ = random_answer(done.copy(), 0)
    rows = [
        row(None),
        *(row(guide.copy(), tokens[:i]) for i in range(8)),
        row(done, answer, ends=()),
        row(done.copy(), [300]),
        row(BrokenGuide()),
    ]
    outcomes = workers.collect(workers.begin(rows), others=True)
    assert sorted(outcomes) == list(range(1, 12))
    for i in range(1, 9):
        assert rows[i].sampling is not None
        assert np.array_equal(outcomes[i], allowed_tokens(rows[i].sampling, VOCAB_SIZE))
    assert outcomes[9] == "complete"
    assert isinstance(outcomes[10], GuideFailed)
    assert "number 0 of the answer" in str(outcomes[10])
    assert isinstance(outcomes[11], GuideFailed)
    assert "KeyError" in str(outcomes[11])


def test_a_late_mask_is_not_waited_for_and_not_computed_twice(impatient, compiler):
    slow = SlowGuide()
    for _ in range(3):
        batch = impatient.begin([row(None), row(slow)])
        assert impatient.collect(batch, others=True) == {1: "late"}
    assert slow.num_asked <= 1
    batch = impatient.begin([row(slow), row(None)])
    slow.gate.set()
    while (outcome := impatient.collect(batch, others=True)[0]) is None or isinstance(outcome, str):
        pass
    assert np.flatnonzero(outcome).tolist() == [0]
    assert slow.num_asked == 1


def test_with_nothing_else_to_do_the_first_mask_is_waited_for(impatient, compiler):
    slow, quick = SlowGuide(), compiler.compile(PERSON)
    batch = impatient.begin([row(slow), row(quick)])
    outcomes = impatient.collect(batch, others=False)
    assert isinstance(outcomes[1], np.ndarray)
    slow.gate.set()


def test_a_step_that_is_executed_again_in_halves_gets_the_same_masks(workers, compiler):
    rows = [row(compiler.compile(PERSON)) for _ in range(6)]
    whole = workers.collect(workers.begin(rows), others=False)
    workers.begin(rows)  # its forward pass raises: nobody collects
    halves = [workers.collect(workers.begin(half), others=False) for half in (rows[:3], rows[3:])]
    again = [*halves[0].values(), *halves[1].values()]
    assert all(np.array_equal(a, b) for a, b in zip(whole.values(), again, strict=True))


def test_closing_waits_for_what_is_under_way(compiler):
    workers = MaskWorkers(VOCAB_SIZE, patience_s=0.0)
    slow = SlowGuide()
    workers.begin([row(slow), row(compiler.compile(PERSON))])
    threading.Timer(0.05, slow.gate.set).start()
    workers.close()
    workers.close()
