"""What the figures mean: pairs, spreads, falls, agreement, and what went wrong is never left out."""

from __future__ import annotations

import json

import pytest

from headrace.bench.report import Report
from headrace.bench.results import EngineResult, Measurement, Spread
from tests.bench.fakes import conditions

TOKENS = ((1, 2), (3, 4), (5, 6), (7, 8))


def run(rate: float, tokens: tuple[tuple[int, ...], ...] = TOKENS, **more: object) -> Measurement:
    return Measurement(8 / rate, tokens, (0.1, 0.3), (1.0, 2.0), **more)  # type: ignore[arg-type]


def result(name: str, *rates: float, level: int = 4) -> EngineResult:
    return EngineResult(name, "1.0", 0.5, {level: [run(rate) for rate in rates]})


def report(*results: EngineResult, levels: tuple[int, ...] = (4,), dtype: str = "float32") -> Report:
    return Report("XS", conditions(levels=levels, dtype=dtype), results, {"c": "no interpreter"}, "a", ["headrace"])


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_ratios_are_of_pairs_of_repeats() -> None:
    base, other = result("a", 100.0, 50.0, 10.0), result("b", 200.0, 100.0, 30.0)
    # The machine slowed down tenfold, and the pairs do not mind.
    assert other.ratio(base, 4) == pytest.approx(Spread(2.0, 2.0, 3.0))


def test_rates_are_medians_with_their_range() -> None:
    assert result("a", 100.0, 50.0, 10.0).rate(4) == pytest.approx(Spread(50.0, 10.0, 100.0))
    assert result("a").rate(4) is None


def test_latencies_are_medians_over_requests() -> None:
    assert result("a", 10.0).latency(4, "ttft_s") == pytest.approx(0.2)
    assert result("a", 10.0).latency(4, "e2e_s") == pytest.approx(1.5)


def test_agreement_counts_requests_that_are_equal_to_the_last_token() -> None:
    base = result("a", 10.0)
    other = EngineResult("b", runs={4: [run(10.0, ((1, 2), (3, 9), (5, 6), (9, 8)))]})
    assert other.agreement(base, 4) == 0.5
    assert "50%" in line(report(base, other).text(), "b")
    assert report(base, other).to_json()["engines"][1]["levels"][0]["same_tokens_ratio"] == 0.5


def test_agreement_is_not_claimed_of_half_precision() -> None:
    text = report(result("a", 10.0), result("b", 20.0), dtype="bfloat16").text()
    assert "%" not in line(text, "b")


def test_a_level_that_is_clearly_slower_than_the_one_before_is_marked() -> None:
    falls = EngineResult("a", runs={1: [run(10.0), run(12.0)], 2: [run(8.0), run(9.0)]})
    noise = EngineResult("b", runs={1: [run(10.0), run(12.0)], 2: [run(8.0), run(11.0)]})
    text = report(falls, noise, levels=(1, 2)).text()
    sweep = text[text.index("tok/s by concurrency") :]
    assert line(sweep, "2").split() == ["2", "8.5", "falls", "9.5"]


def test_failures_and_what_was_left_out_are_said() -> None:
    broken = EngineResult("b", failure="exited with status 1: boom")
    text = report(result("a", 10.0), broken).text()
    assert "failed" in line(text, "b")
    assert "b failed: exited with status 1: boom" in text
    assert "c left out: no interpreter" in text


def test_an_engine_that_failed_later_keeps_its_figures() -> None:
    late = result("b", 20.0)
    late.failure = "boom"
    assert "b (failed later)" in report(result("a", 10.0), late).text()


def test_a_failed_baseline_leaves_figures_without_ratios() -> None:
    text = report(EngineResult("a", failure="boom"), result("b", 20.0)).text()
    assert "20.0 [20.0..20.0]" in line(text, "b")


@pytest.mark.parametrize(("others", "disturbed"), [(0.05, False), (1.4, True)])
def test_other_programs_are_named(others: float, disturbed: bool) -> None:
    busy = EngineResult("a", runs={4: [run(10.0, other_cores=others)]})
    assert ("DISTURBED" in report(busy).text()) is disturbed


def test_parts_of_a_step_are_shown_as_milliseconds() -> None:
    steps = {"schedule": [0.001] * 99 + [0.005], "execute": [0.020] * 100}
    text = report(EngineResult("a", runs={4: [run(10.0, steps=steps)]})).text()
    assert "schedule 1.00" in text
    assert "execute 20.00 (20.00)" in text


def test_json_is_json_with_every_repeat() -> None:
    written = json.loads(json.dumps(report(result("a", 10.0, 12.0), result("b", 20.0, 24.0)).to_json()))
    assert [len(e["levels"][0]["repeats"]) for e in written["engines"]] == [2, 2]
    assert written["engines"][1]["levels"][0]["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert written["workload"]["num_output_tokens"] == 30
    assert set(written["machine"]) == {"cpu", "memory", "platform"}
