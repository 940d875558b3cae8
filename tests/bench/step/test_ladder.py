"""Steps of several batch sizes: measured on a real engine, in step and ahead; limits from the shape's bytes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from headrace.bench.step import command, ladder
from headrace.bench.step.beside import steady_step_s
from headrace.bench.step.ladder import Rung, climb, open_engine, step_bytes
from headrace.bench.step.measure import StepShape
from headrace.errors import ConfigError, HeadraceError

LAYERS, HIDDEN, INNER, VOCAB, QKV, HEADS = 2, 64, 128, 32_000, 128, 64  # shape XS


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [False, True])
def test_each_batch_is_measured_by_the_clock(folder: Path, ahead: bool) -> None:
    shapes = [StepShape(batch, context=40, steps=4) for batch in (1, 3)]
    engine = open_engine(str(folder), "float32", shapes, {"async_scheduling": ahead, "attn_implementation": "torch"})
    said: list[str] = []
    try:
        rungs = climb(engine, shapes, 1e9, said.append)
        assert engine.core.scheduler.check() == []
        assert not engine.core.has_work
    finally:
        engine.core.runner.close()
    assert [rung.batch for rung in rungs] == [1, 3]
    assert all(rung.error is None and rung.step_s is not None and 0 < rung.step_s < 5 for rung in rungs)
    assert len(said) == 2


def test_the_limit_is_weights_and_keys_and_values_but_no_embedding_of_its_own(folder: Path) -> None:
    shape = StepShape(3, context=40, steps=4)
    engine = open_engine(str(folder), "float32", [shape], {"surgery": False})
    try:
        norms = (2 * LAYERS + 1) * HIDDEN
        weights = LAYERS * (HIDDEN * QKV + HEADS * HIDDEN + 3 * HIDDEN * INNER) + norms + VOCAB * HIDDEN
        attention = LAYERS * (3 * 40 * 64 + 3 * 2 * 2 * 32)  # keys and values; queries and results
        assert step_bytes(engine, shape) == 4 * (weights + attention)
    finally:
        engine.core.runner.close()


def test_what_does_not_fit_is_said_and_the_others_are_measured(folder: Path) -> None:
    shapes = [StepShape(batch, context=64, steps=4) for batch in (8, 1)]
    engine = open_engine(str(folder), "float32", shapes, {"num_blocks": 8})
    try:
        refused, measured = climb(engine, shapes, 1e9, lambda line: None)
    finally:
        engine.core.runner.close()
    assert "the cache holds no more" in str(refused.error)
    assert measured.step_s is not None
    text = ladder.to_text("x", 64, 1e9, [refused, measured])
    assert "batch 8: ConfigError" in text


@pytest.mark.slow
def test_the_memory_is_measured() -> None:
    ticks = iter(range(100))
    found = ladder.device_bytes_per_s(torch.device("cpu"), lambda: float(next(ticks)))
    assert found == 2 * (1 << 30) * 8  # a second for eight copies


@pytest.mark.slow
def test_a_table_and_json_come_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "device_bytes_per_s", lambda device: 1e9)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    target = tmp_path / "step.json"
    argv = ["--shape", "XS", "--dtype", "fp32", "--batch", "1,2", "--context", "32", "--steps", "4", "--threads", "1"]
    assert command.run(parser.parse_args([*argv, "--model-dir", str(tmp_path), "--json", str(target)])) == 0
    text = capsys.readouterr().out
    assert "limit ms" in text
    written = json.loads(target.read_text())
    assert [rung["batch"] for rung in written["batches"]] == [1, 2]
    assert written["bytes_per_s"] == 1e9
    with pytest.raises(ConfigError, match="--prefill"):
        command.run(parser.parse_args([*argv, "--model-dir", str(tmp_path), "--prefill"]))


def test_the_step_of_others_is_taken_while_all_rows_are_there() -> None:
    early = [0.0, 1.0, 2.0, 3.0, 3.5]
    late = [1.5, 2.0, 2.25, 2.5, 9.0]
    assert steady_step_s([early, late]) == 0.5  # of 1.0 (2 to 3), 0.5, 0.5, 0.25, 0.25
    with pytest.raises(HeadraceError, match="had ended before"):
        steady_step_s([[0.0, 1.0], [2.0, 3.0]])
    with pytest.raises(HeadraceError, match="does not tell"):
        steady_step_s([[], [1.0]])


def test_rungs_without_a_figure_have_empty_cells() -> None:
    text = ladder.to_text("x", 10, 1e9, [Rung(1, None, 0.001, error="no"), Rung(2, 0.002, 0.001, 0.004)])
    assert "4.000" in text
    assert text.endswith("batch 1: no")
