"""Real steps of a real engine of the smallest shape, with the kernels and through torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from headrace.bench.step import command, instrument, roofline
from headrace.bench.step.measure import StepShape, StepSplit, attention_cost, split_step
from headrace.bench.step.report import to_text
from headrace.bench.step.roofline import Roofline
from headrace.bench.step.stopwatch import Cost, Stopwatch
from headrace.errors import ConfigError
from headrace.model.attention.interface import LayerSpec
from headrace.model.kernels import library
from headrace.model.kernels.library import available_isas, load_library, open_kernels
from headrace.model.kernels.linear import PackedLinear

compiled = pytest.mark.skipif(not available_isas(), reason="the kernels were not built")
HIDDEN, INNER, VOCAB, LAYERS, QKV, HEADS = 64, 128, 32_000, 2, 128, 64  # shape XS


@pytest.fixture(autouse=True)
def quick_roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.bench.step.measure.measure_roofline", lambda _: Roofline(1e9, 1e12))


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    yield
    for loaded in (load_library(), load_library(library.LIBRARY_PATH)):
        for name in instrument._KERNELS if loaded is not None else ():
            assert not hasattr(getattr(loaded, name), "__wrapped__"), f"{name} is still timed"


def split(folder: Path, shape: StepShape, **settings: object) -> StepSplit:
    return split_step(folder, "float32", shape, settings)


def products(batch: int) -> float:
    return 2.0 * batch * LAYERS * (HIDDEN * QKV + HEADS * HIDDEN + 3 * HIDDEN * INNER)


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("batch", [1, 5])
def test_decodes_on_the_kernels(folder: Path, batch: int) -> None:
    found = split(folder, StepShape(batch, context=40, steps=6))
    parts = found.parts
    assert found.attention == "cpu"
    assert parts[instrument.LINEARS].cost.operations == products(batch)
    assert parts[instrument.LOGITS].cost.operations == 2.0 * batch * HIDDEN * VOCAB
    assert parts[instrument.LOGITS].calls == 1
    assert parts[instrument.ATTENTION].calls == LAYERS
    assert parts[instrument.LOGITS].cost.num_bytes >= HIDDEN * VOCAB * 4
    assert found.total_s > 0
    assert found.plain_s > 0
    assert sum(part.seconds for part in parts.values()) == pytest.approx(found.total_s, rel=0.5)


def test_decodes_through_torch_do_the_same_work(folder: Path) -> None:
    found = split(folder, StepShape(3, context=40, steps=6), surgery=False, attn_implementation="torch")
    assert (found.attention, found.surgery) == ("torch", "off")
    assert found.parts[instrument.LINEARS].cost.operations == products(3)
    assert found.parts[instrument.LOGITS].cost.operations == 2.0 * 3 * HIDDEN * VOCAB
    assert found.parts[instrument.ATTENTION].calls == LAYERS
    assert instrument.SAMPLING in found.parts


def test_a_prefill_step_computes_whole_prompts(folder: Path) -> None:
    found = split(folder, StepShape(3, context=40, steps=2, prefill=True), surgery=False, attn_implementation="torch")
    assert found.parts[instrument.LINEARS].cost.operations == products(3 * 40)
    assert found.parts[instrument.LOGITS].cost.operations == 2.0 * 3 * HIDDEN * VOCAB  # of last tokens alone


def test_more_decodes_than_the_cache_holds_are_refused_with_the_numbers(folder: Path) -> None:
    with pytest.raises(ConfigError, match="not 8 and 8: the cache holds no more"):
        split(folder, StepShape(8, context=64, steps=4), num_blocks=8)


def test_a_context_shorter_than_its_steps_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="context 10 is too short for 32 steps around it: at least 22"):
        split(folder, StepShape(1, context=10, steps=32))


def test_attention_costs_keys_and_values_once_and_what_queries_see() -> None:
    full = LayerSpec(0, num_heads=4, num_kv_heads=2, key_dim=8, value_dim=8, scale=1.0)
    window = LayerSpec(1, num_heads=4, num_kv_heads=2, key_dim=8, value_dim=8, scale=1.0, window=10)
    decode = StepShape(3, context=100, steps=1)
    assert attention_cost((full,), decode, 2) == Cost((3 * 100 * 32 + 3 * 64) * 2, 2.0 * 3 * 100 * 64)
    assert attention_cost((window,), decode, 2) == Cost((3 * 10 * 32 + 3 * 64) * 2, 2.0 * 3 * 10 * 64)
    prefill = StepShape(3, context=100, steps=1, prefill=True)
    assert attention_cost((full,), prefill, 2).operations == 2.0 * 3 * (100 * 101 / 2) * 64
    assert attention_cost((window,), prefill, 2).operations == 2.0 * 3 * (55 + 90 * 10) * 64


@compiled
def test_what_a_product_costs_is_read_from_its_arguments() -> None:
    stopwatch = Stopwatch(lambda: 0.0, Roofline(1e9, 1e9).limit_s)
    with instrument.instrumented(stopwatch):
        kernels = open_kernels(num_threads=1)
        packed = PackedLinear.of(kernels, torch.randn(32, 16), gated=True)
        stopwatch.running = True
        packed(torch.randn(5, 16))
    part = stopwatch.take()[instrument.LINEARS]
    assert part.cost == Cost((32 * 16 + 5 * (16 + 16)) * 4, 2.0 * 5 * 32 * 16)


@pytest.mark.parametrize(("others", "disturbed"), [(None, False), (0.05, False), (1.4, True)])
def test_other_programs_are_named(others: float | None, disturbed: bool) -> None:
    quiet = StepSplit(StepShape(1, 40, 1), Roofline(1e9, 1e9), {}, 1.0, 1.0, "cpu", "off", others)
    assert ("DISTURBED: other programs kept 1.4 cores busy" in to_text("x", quiet)) is disturbed


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_roofline_is_above_what_any_machine_is_under(dtype: torch.dtype) -> None:
    found = roofline.measure(dtype)
    assert 1e8 < found.bytes_per_s < 1e13
    assert 1e8 < found.operations_per_s < 1e15


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    target = tmp_path / "step.json"
    argv = ["--shape", "XS", "--dtype", "fp32", "--batch", "2", "--context", "32", "--steps", "4", "--threads", "1"]
    argv += ["--set", "surgery=false", "--set", "attn_implementation=torch"]
    assert command.run(parser.parse_args([*argv, "--model-dir", str(tmp_path), "--json", str(target)])) == 0
    text = capsys.readouterr().out
    assert "shape XS, float32, surgery=False, attn_implementation=torch: 2 decodes at 32 tokens of context" in text
    assert "roofline on the spot: 1.0 GB/s read, 1,000 GFLOP/s in products" in text
    written = json.loads(target.read_text())
    limits = written["parts"]["linears"]
    assert limits["limit_s"] == pytest.approx(limits["bytes"] / 1e9)
    assert limits["ratio"] == pytest.approx(limits["seconds"] / limits["limit_s"])
