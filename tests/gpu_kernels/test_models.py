"""Tiny models through the Triton attention, with and without surgery: the tokens of their own `generate`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tools.model_table.tiny_configs import make_model

from headrace import LLM, SamplingParams
from headrace.errors import ConfigError
from headrace.model.loader import load
from headrace.model.paged_model import PagedModel
from headrace.model.surgery.proven import operate_and_prove
from tests.engine.reference import own_tokens
from tests.surgery.conftest import make_model as small_model

PROMPTS = [[7, 21, 9, 33, 60, 41, 12, 90, 14, 77, 28], [5]]
COUNT = 4
FEATURES = {
    "qwen3": "norms of heads",
    "gemma2": "soft cap and window",
    "gpt_oss": "sinks and window",
    "llama4_text": "chunks",
    "deepseek_v3": "values narrower than keys",
    "diffllama": "two calls a layer",
    "gpt2": "no rotation, biases",
    "phi3": "one weight for queries, keys and values",
    "olmo2": "norms over all heads",
    "mixtral": "experts",
}


def tokens(model: Any, device: str, **options: Any) -> list[tuple[int, ...]]:
    params = SamplingParams(max_tokens=COUNT, temperature=0.0, ignore_eos=True)
    settings = {"attn_implementation": "triton", "block_size": 4, "num_blocks": 64, "max_num_batched_tokens": 8}
    with LLM(model.to(device), **settings, **options) as llm:
        outputs = llm.generate(PROMPTS, params)
    for output in outputs:
        assert output.error is None, output.error
    return [tuple(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.slow
@pytest.mark.parametrize("surgery", [True, False])
@pytest.mark.parametrize("model_type", FEATURES)
def test_greedy_tokens_of_every_feature(model_type, surgery, device):
    """Prompts longer than a step are computed in chunks, beside decodes."""
    model = make_model(model_type)
    expected = [own_tokens(model, prompt, COUNT) for prompt in PROMPTS]
    assert tokens(model, device, surgery=surgery) == expected


@pytest.mark.slow
def test_a_layer_is_fused_and_proven(device):
    """The proof decodes, and goes on with a prompt's second chunk, beside another row."""
    model = small_model("qwen3", num_hidden_layers=1).to(device)
    paged = PagedModel(load(model, dtype="auto", device=device), "triton")
    try:
        difference, report = operate_and_prove(paged)
        assert difference < 1e-4
        assert report is not None
        assert {kind: count for (kind, _), count in report.fused.items()} == {
            "mlp": 1, "attention": 1, "norm": 3, "layer": 1,
        }  # fmt: skip
    finally:
        paged.close()


FULLY = ("llama", "qwen3", "gemma2", "phi3", "olmo2", "gpt2", "cohere2")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("model_type", FULLY)
def test_surgery_is_proven_and_given_back(model_type, dtype, device):
    model = make_model(model_type).to(device, dtype)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    paged = PagedModel(load(model, dtype="auto", device=device), "triton")
    try:
        difference, report = operate_and_prove(paged)
        assert difference < (1e-4 if dtype == torch.float32 else 0.1)
        assert report is not None
        assert not report.dropped
        kinds = {kind: count for (kind, _), count in report.fused.items()}
        assert kinds["layer"] == kinds["attention"] == kinds["mlp"] == len(paged.layers)
        after = dict(model.named_parameters())
        assert all(torch.equal(after[name], value) for name, value in before.items())
    finally:
        paged.close()
    owners = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert len(owners) == len(before)  # nobody's memory is another's
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.slow
def test_merged_weights_are_no_second_copy(device):
    model = make_model("llama").to(device)
    num_bytes = sum(parameter.nbytes for parameter in model.parameters())
    paged = PagedModel(load(model, dtype="auto", device=device), "triton")
    try:
        operate_and_prove(paged)
        storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
        assert len(storages) < len(list(model.parameters()))
        assert sum(storages.values()) == num_bytes
    finally:
        paged.close()


@pytest.mark.slow
def test_quantization_is_refused(device):
    paged = PagedModel(load(make_model("llama").to(device), dtype="auto", device=device), "triton")
    try:
        with pytest.raises(ConfigError, match="needs the CPU kernels"):
            operate_and_prove(paged, quantization="int8")
    finally:
        paged.close()
