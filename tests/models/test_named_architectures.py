"""The architectures that are named to users give the same greedy tokens as their own `generate`."""

from __future__ import annotations

import pytest
from tools.model_table.equality import Outcome, expected_tokens, run
from tools.model_table.tiny_configs import make_model

NAMED = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "phi3", "olmo2", "granite",
    "starcoder2", "gpt_neox", "gpt2", "cohere2", "smollm3", "glm4", "exaone4", "gpt_oss",
)  # fmt: skip
# One of each kind for every change; all of them, and everybody else, with the slow tests.
QUICK = ("llama", "gemma2", "gpt2", "gpt_oss", "mixtral")


def outcomes_and_expected(model_type: str) -> tuple[dict[str, Outcome], list[tuple[int, ...]]]:
    model = make_model(model_type)
    return run(model), expected_tokens(model)


@pytest.mark.parametrize(
    "model_type", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMED]
)
def test_same_tokens_as_generate(model_type: str) -> None:
    outcomes, expected = outcomes_and_expected(model_type)
    assert {situation: outcome.tokens for situation, outcome in outcomes.items()} == dict.fromkeys(outcomes, expected)
    # The situations were what they are called, and the tokens say something.
    assert outcomes["prefix hits"].num_cached_tokens > 40
    assert outcomes["preempted"].num_preemptions > 0
    assert len({token for tokens in expected for token in tokens}) >= 12


@pytest.mark.parametrize(
    ("model_type", "groups"),
    [
        ("gemma2", ("1 layers full", "2 layers sliding window of 8")),
        ("phimoe", ("3 layers sliding window of 8",)),  # the window is in the mask alone
        ("llama4_text", ("1 layers full", "2 layers chunks of 8")),
        ("diffllama", ("6 layers full",)),  # two calls of attention per layer
    ],
)
def test_layers_are_learned_from_their_calls(model_type: str, groups: tuple[str, ...]) -> None:
    from headrace import LLM

    with LLM(make_model(model_type), block_size=4, num_blocks=64) as llm:
        assert tuple(pool["group"] for pool in llm.dump_state()["cache"]["pools"]) == groups
