"""What is known of a checkpoint before it is loaded, and memory that is taken for it meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tools.model_table.tiny_configs import make_model

from headrace import LLM
from headrace.errors import ModelNotSupported
from headrace.model import reserve as reserve_module
from headrace.model.checkpoint_size import matrix_bytes
from headrace.model.kernels.library import available_isas
from headrace.model.reserve import Reserve
from tests.engine.reference import greedy

PROMPTS = [[3, 5, 7, 11], [2, 4]]

needs_kernels = pytest.mark.skipif(not available_isas(), reason="the CPU kernels were not built")


def test_bytes_of_matrices(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3, 5, dtype=torch.bfloat16), "b": torch.zeros(2, 3, 4), "norm": torch.zeros(7)}
    save_file(tensors, tmp_path / "model-1.safetensors", metadata={"format": "pt"})
    save_file({"c": torch.zeros(10, 10), "ids": torch.zeros(9, 9, dtype=torch.int64)}, tmp_path / "model-2.safetensors")
    assert matrix_bytes(tmp_path) == 2 * 15 + 4 * 24 + 4 * 100
    assert matrix_bytes(tmp_path, 1) == 15 + 24 + 100


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense", b"\xff" * 20, b"\x02" + bytes(7) + b"[]"]
)
def test_a_file_that_is_none_counts_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert matrix_bytes(tmp_path) == 0
    assert matrix_bytes(tmp_path / "missing") == 0


@pytest.fixture
def reserves(monkeypatch: pytest.MonkeyPatch) -> list[Reserve]:
    """The reserves that loading makes, on two processors."""
    made: list[Reserve] = []

    def make(num_bytes: int) -> Reserve:
        made.append(Reserve(num_bytes))
        return made[-1]

    monkeypatch.setattr(reserve_module, "Reserve", make)
    monkeypatch.setattr(reserve_module, "usable_threads", lambda: 2)
    return made


@needs_kernels
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_weights_are_packed_into_the_reserve(quantization: str | None, reserves: list[Reserve], tmp_path: Path) -> None:
    model = make_model("qwen3")
    model.save_pretrained(tmp_path)
    with LLM(str(tmp_path), num_blocks=32, quantization=quantization) as llm:
        got = [output.outputs[0].token_ids for output in llm.generate(PROMPTS, greedy(8))]
    (reserve,) = reserves
    assert not reserve._thread.is_alive()
    assert reserve.num_bytes >= matrix_bytes(tmp_path, 1 if quantization else None)
    with LLM(model, num_blocks=32, quantization=quantization) as llm:
        assert [output.outputs[0].token_ids for output in llm.generate(PROMPTS, greedy(8))] == got
    assert len(reserves) == 1  # a model object has no files


@needs_kernels
@pytest.mark.parametrize("settings", [{"surgery": False}, {"device": "cpu", "surgery": False}])
def test_nothing_is_reserved_where_nothing_is_packed(
    settings: dict[str, object], reserves: list[Reserve], tmp_path: Path
) -> None:
    make_model("qwen3").save_pretrained(tmp_path)
    LLM(str(tmp_path), num_blocks=32, **settings).close()
    assert reserves == []


@needs_kernels
def test_a_model_that_cannot_be_loaded_keeps_nothing(reserves: list[Reserve], tmp_path: Path) -> None:
    save_file({"w": torch.zeros(64, 64)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(ModelNotSupported):
        LLM(str(tmp_path), num_blocks=32)
    (reserve,) = reserves
    assert not reserve._thread.is_alive()
