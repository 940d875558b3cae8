"""Attention blocks, norms and whole layers of the named architectures: what fuses, and what must not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from headrace.model.surgery.proven import operate_and_prove
from tests.surgery.conftest import Wire, make_model

SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
WHOLE = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16, **SLIDING},
    "phi3": {},
    "olmo": {},
    "olmo2": {},
    "granite": {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "attention_multiplier": 0.1},
    "smollm3": {"no_rope_layers": [1, 0]},
    "starcoder2": {},
    "cohere2": SLIDING,
    "glm4": {},
    "gpt_neox": {},
    "gpt2": {},
    "mixtral": EXPERTS,
    "qwen3_moe": EXPERTS,
}
"""Of these nothing stays the model's own but embeddings, rotary angles and what follows a router's product."""


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", WHOLE)
def test_fuses_fully(wire: Wire, kind: str, dtype: torch.dtype) -> None:
    wired = wire(make_model(kind, dtype, **WHOLE[kind]))
    difference, report = operate_and_prove(wired)
    assert report is not None
    assert not report.dropped
    block = "experts" if kind in ("mixtral", "qwen3_moe") else "mlp"
    counts = {kind: count for (kind, _), count in report.fused.items()}
    assert counts.pop("norm") >= 3
    assert counts.pop("product", 0) == (2 if block == "experts" else 0)  # routers
    assert counts.pop("embedding", 0) == wired.loaded.model.config.tie_word_embeddings
    assert counts == {"attention": 2, block: 2, "linear": 1, "layer": 2}
    assert difference < (1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.usefixtures("kernels")
def test_sinks_are_passed_on(wire: Wire) -> None:
    model = make_model("gpt_oss", **EXPERTS, **SLIDING)
    difference, report = operate_and_prove(wire(model))
    assert report is not None
    assert report.fused["attention", "GptOssAttention"] == 2
    assert difference < 1e-5


def drops(wire: Wire, model: Any) -> None:
    difference, report = operate_and_prove(wire(model))
    assert report is not None
    assert [(kind, count) for (kind, *_), count in report.dropped.items()] == [("attention", 2)]
    assert difference < 1e-5


@pytest.mark.usefixtures("kernels")
def test_a_clamp_that_ordinary_numbers_do_not_meet_is_not_lost(wire: Wire) -> None:
    drops(wire, make_model("olmo", clip_qkv=40.0))


@pytest.mark.usefixtures("kernels")
def test_a_scale_that_grows_with_far_positions_is_not_lost(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    forward, rotate = modeling_llama.LlamaAttention.forward, modeling_llama.apply_rotary_pos_emb
    scale = torch.ones(())

    def noting(self: Any, hidden_states: torch.Tensor, position_ids: torch.Tensor, **rest: Any) -> Any:
        nonlocal scale
        scale = 1 + torch.log(1 + position_ids // 8192)[:, None, :, None]
        return forward(self, hidden_states, position_ids=position_ids, **rest)

    def scaling(q: torch.Tensor, k: torch.Tensor, *angles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, k = rotate(q, k, *angles)
        return q * scale, k

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", noting)
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", scaling)
    drops(wire, make_model("llama"))


@pytest.mark.usefixtures("kernels")
def test_a_layer_that_adds_in_its_own_way_keeps_its_sums(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    own = modeling_llama.LlamaDecoderLayer.forward

    def forward(self: Any, hidden_states: torch.Tensor, **rest: Any) -> torch.Tensor:
        return own(self, hidden_states, **rest) + 0.1 * hidden_states

    monkeypatch.setattr(modeling_llama.LlamaDecoderLayer, "forward", forward)
    difference, report = operate_and_prove(wire(make_model("llama")))
    assert report is not None
    assert report.fused["attention", "LlamaAttention"] == 2
    assert [(kind, count) for (kind, *_), count in report.dropped.items()] == [("layer", 2)]
    assert difference < 1e-5
