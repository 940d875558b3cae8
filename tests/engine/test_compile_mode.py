"""compile_mode changes how the layers run, not what they give."""

from __future__ import annotations

import copy

import pytest

from headrace import LLM
from headrace.errors import ConfigError
from tests.engine.reference import PROMPTS, greedy, own_tokens


@pytest.mark.slow
def test_compiled_layers_give_the_same_tokens_and_are_given_back(tiny_model):
    model = copy.deepcopy(tiny_model)
    with LLM(model, compile_mode="default", attn_implementation="torch") as llm:
        compiled = model.model.layers[0]._compiled_call_impl
        outputs = llm.generate(PROMPTS, greedy(8))
    assert compiled is not None
    expected = [tuple(own_tokens(tiny_model, prompt, 8)) for prompt in PROMPTS]
    assert [output.outputs[0].token_ids for output in outputs] == expected
    assert model.model.layers[0]._compiled_call_impl is None


def test_an_unknown_mode_is_refused_with_the_known_ones(tiny_model):
    with pytest.raises(ConfigError, match="'fast' is not one of default, reduce-overhead"):
        LLM(copy.deepcopy(tiny_model), compile_mode="fast")
