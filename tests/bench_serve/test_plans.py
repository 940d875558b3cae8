"""Arrivals, lengths and plans: reproducible, and of the distribution that was asked for."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random
from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench.serve.arrivals import Arrivals
from headrace.bench.serve.lengths import Lengths
from headrace.bench.serve.plan import Mix, cut_words, cutter, plan
from headrace.errors import ConfigError


def gaps(arrivals: Arrivals, count: int) -> list[float]:
    return [after - before for before, after in pairwise([0.0, *arrivals.times(count, Random(5))])]


def test_a_poisson_process_has_the_rate_and_the_spread() -> None:
    found = gaps(Arrivals.parse("8", 1.0), 20_000)
    assert fmean(found) == pytest.approx(1 / 8, rel=0.03)
    assert fmean((gap * 8 - 1) ** 2 for gap in found) == pytest.approx(1.0, rel=0.06)


def test_burstiness_widens_and_narrows_the_spread() -> None:
    assert fmean((gap - 1) ** 2 for gap in gaps(Arrivals.parse("1", 0.25), 20_000)) == pytest.approx(4.0, rel=0.1)
    assert set(gaps(Arrivals.parse("4", math.inf), 50)) == {0.25}


@pytest.mark.parametrize("ramp", ["2:20", "20:2"])
def test_a_ramp_changes_the_rate_steadily(ramp: str) -> None:
    times = list(Arrivals.parse(ramp, math.inf).times(1100, Random(0)))
    assert times[-1] == pytest.approx(100.0)  # 1,100 requests at 11 a second on average
    first, last = (sum(low <= moment < low + 10 for moment in times) for low in (0, 90))
    assert sorted((first, last)) == pytest.approx([29, 191], abs=2)


@given(st.floats(0.1, 1e3), st.floats(0.1, 1e3), st.floats(0.05, 100), st.integers(1, 60))
def test_arrivals_ascend_whatever_the_rates(rate: float, end_rate: float, burstiness: float, count: int) -> None:
    times = list(Arrivals(rate, end_rate, burstiness).times(count, Random(1)))
    assert len(times) == count
    assert all(0 <= before <= after for before, after in pairwise(times))


def test_everything_at_once() -> None:
    assert list(Arrivals.parse("inf", 1.0).times(3, Random(0))) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("rate", ["0", "-1", "x", "1:2:3", "inf:2", "1:"])
def test_rates_that_are_none_are_refused(rate: str) -> None:
    with pytest.raises(ConfigError, match="ramp"):
        Arrivals.parse(rate, 1.0)


def test_lengths_have_their_distribution() -> None:
    random = Random(3)
    assert {Lengths.parse("7").draw(random) for _ in range(20)} == {7}
    assert {Lengths.parse("3-5").draw(random) for _ in range(100)} == {3, 4, 5}
    normal = [Lengths.parse("normal:500:50").draw(random) for _ in range(4000)]
    assert fmean(normal) == pytest.approx(500, rel=0.02)
    assert median(Lengths.parse("lognormal:200:0.7").draw(random) for _ in range(4000)) == pytest.approx(200, rel=0.08)
    assert min(Lengths.parse("normal:2:50").draw(random) for _ in range(100)) == 1


@pytest.mark.parametrize("text", ["", "0", "5-3", "normal:5", "gamma:1:2", "-4", "1.5", "normal:x:y"])
def test_lengths_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="uniform"):
        Lengths.parse(text)


def test_the_same_seed_is_the_same_plan_and_another_is_not() -> None:
    mix = Mix(Lengths.parse("5-40"), Lengths.parse("3-9"), prefix_tokens=8, num_prefixes=3, num_turns=2)
    arrivals = Arrivals.parse("5", 1.0)
    assert plan(mix, arrivals, 21, 1, cut_words) == plan(mix, arrivals, 21, 1, cut_words)
    assert plan(mix, arrivals, 21, 1, cut_words) != plan(mix, arrivals, 21, 2, cut_words)


def test_a_plan_has_the_turns_the_prefixes_and_the_leavers() -> None:
    mix = Mix(Lengths.parse("5"), Lengths.parse("9"), prefix_tokens=8, num_prefixes=3, num_turns=4, cancel_ratio=0.5)
    conversations = plan(mix, Arrivals(), 402, 1, cut_words)
    assert [len(conversation.turns) for conversation in conversations] == [4] * 100 + [2]
    prefixes = {conversation.system for conversation in conversations}
    assert len(prefixes) == 3
    assert {len(prefix.split()) for prefix in prefixes} == {8}
    turns = [turn for conversation in conversations for turn in conversation.turns]
    assert {len(turn.text.split()) for turn in turns} == {5}
    leavers = [turn.cancel_after for turn in turns if turn.cancel_after is not None]
    assert 150 < len(leavers) < 250
    assert set(leavers) == set(range(1, 9))


def test_a_tokenizer_cuts_by_the_token() -> None:
    from tokenizers import Tokenizer

    from headrace import assets

    file = str(assets.path("builtin") / "tokenizer.json")
    mix = Mix(Lengths.parse("33"), Lengths.parse("1"))
    (conversation,) = plan(mix, Arrivals(), 1, 1, cutter(file))
    ids = Tokenizer.from_file(file).encode(conversation.turns[0].text, add_special_tokens=False).ids
    assert len(ids) == 33
