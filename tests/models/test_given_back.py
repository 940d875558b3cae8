"""A model object that was served is afterwards the model that was handed in."""

from __future__ import annotations

import pytest
from tools.model_table.equality import expected_tokens
from tools.model_table.tiny_configs import make_model
from transformers import PreTrainedModel

from headrace import LLM
from headrace.errors import ModelNotSupported

SETTINGS = {"block_size": 4, "num_blocks": 64}


def attention_names(model: PreTrainedModel) -> list[str]:
    return [module.config._attn_implementation for module in model.modules() if isinstance(module, PreTrainedModel)]


def test_parts_keep_their_own_attention() -> None:
    model = make_model("gemma3")
    model.set_attn_implementation({"": "sdpa", "text_config": "sdpa", "vision_config": "eager"})
    before, tokens = attention_names(model), expected_tokens(model)
    assert {"sdpa", "eager"} <= set(before)
    with LLM(model, **SETTINGS):
        assert attention_names(model) != before
    assert attention_names(model) == before
    assert expected_tokens(model) == tokens


def test_a_refused_model_is_given_back() -> None:
    model = make_model("qwen3_next")
    before, tokens = attention_names(model), expected_tokens(model)
    with pytest.raises(ModelNotSupported):
        LLM(model, **SETTINGS)
    assert attention_names(model) == before
    assert expected_tokens(model) == tokens


def test_closing_again_leaves_the_next_engine_alone() -> None:
    model = make_model("llama")
    tokens = expected_tokens(model)
    first = LLM(model, **SETTINGS)
    first.close()
    with LLM(model, **SETTINGS) as second:
        first.close()
        assert second.generate([1, 2, 3])[0].error is None
    assert expected_tokens(model) == tokens
