"""Tiny models with random weights, and the kernels; tests of this folder are skipped where those were not built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from headrace.model.kernels.library import Kernels, load_library, open_kernels
from headrace.model.loader import load
from headrace.model.paged_model import PagedModel

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    if load_library() is None:
        pytest.skip("the CPU kernels were not built")
    return open_kernels(num_threads=2)


def make_model(kind: str, dtype: torch.dtype = torch.float32, **overrides: Any) -> Any:
    """A transformers model in which every parameter matters: no norm weight is 1, no bias is 0."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **overrides})
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
        else:
            parameter.data.mul_(3.0)
    return model


@pytest.fixture
def wire() -> Any:
    """Wires models, and gives them back after the test."""
    wired: list[PagedModel] = []

    def make(model: Any) -> PagedModel:
        wired.append(PagedModel(load(model, dtype="auto", device="cpu"), "auto"))
        return wired[-1]

    yield make
    for paged in wired:
        paged.close()


Wire = Callable[[Any], PagedModel]
