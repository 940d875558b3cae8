"""The model of a shape is the same in every dtype and in every file format."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest

from headrace.bench import gguf_file
from headrace.bench.shapes import SHAPES, Shape, model_folder, shape
from headrace.errors import ConfigError, HeadraceError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def num_parameters(name: str) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    wanted = shape(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(wanted.model_type, **wanted.config))
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "millions"), [("XS", 4.2), ("S", 61.1), ("M", 596.0)])
def test_shapes_have_the_size_they_say(name: str, millions: float) -> None:
    assert math.isclose(num_parameters(name) / 1e6, millions, rel_tol=0.01)


def test_unknown_shape_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match="'XL'; there are XS, S, M, L"):
        shape("XL")


def test_fingerprint_names_the_configuration() -> None:
    wider = Shape("XS", "", "llama", SHAPES["XS"].config | {"hidden_size": 128})
    assert wider.fingerprint != SHAPES["XS"].fingerprint


@pytest.mark.slow
def test_a_model_that_cannot_be_made_says_why(root: Path) -> None:
    with pytest.raises(HeadraceError, match=r"shape bad could not be made: .*nonsense"):
        model_folder(Shape("bad", "", "nonsense", {}), "float32", root)


@pytest.mark.slow
def test_folders_load_with_transformers_and_bfloat16_is_float32_rounded(root: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = {dtype: model_folder(SHAPES["XS"], dtype, root) for dtype in ("float32", "bfloat16")}
    models = {dtype: AutoModelForCausalLM.from_pretrained(folder, dtype="auto") for dtype, folder in folders.items()}
    exact, rounded = (models[dtype].get_input_embeddings().weight for dtype in ("float32", "bfloat16"))
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(exact.to(torch.bfloat16), rounded)
    assert AutoTokenizer.from_pretrained(folders["float32"]).decode([7, 31_999]) == "t7 t31999"
    assert not list(root.glob("*.unfinished"))


def test_gguf_rounds_as_torch_does(root: Path) -> None:
    import torch

    values = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    ours = gguf_file._to_bfloat16(values.numpy())
    assert np.array_equal(ours, values.to(torch.bfloat16).view(torch.uint16).numpy())


def test_gguf_interleaves_the_halves_of_a_head() -> None:
    halves = np.arange(8, dtype=np.float32).reshape(8, 1)  # two heads: rows 0..3 and 4..7
    assert gguf_file._interleave(halves, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gguf_file_is_as_long_as_its_header_says(root: Path, dtype: str) -> None:
    folder = model_folder(SHAPES["XS"], "float32", root)
    raw = gguf_file.convert(folder, dtype).read_bytes()
    magic, version, num_tensors, num_keys = struct.unpack_from("<4sIQQ", raw)
    assert (magic, version, num_tensors, num_keys) == (b"GGUF", 3, 21, 15)
    assert len(raw) % 32 == 0
    assert b"blk.1.attn_q.weight" in raw
    assert b"tokenizer.ggml.model" in raw


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ConfigError, match="'gpt2' cannot be written as GGUF"):
        gguf_file.convert(tmp_path, "float32")
