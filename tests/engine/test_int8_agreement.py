"""With int8 weights the built-in model means the same: the most likely token, all else being what it was given."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import LLM, SamplingParams
from headrace.model.kernels.library import load_library

pytestmark = pytest.mark.skipif(load_library() is None, reason="the CPU kernels were not built")

QUESTIONS = (
    "Who are you?", "What is 36 + 47?", "Tell me a story about Mira.", "What is 9 times 8?", "Sort 41, 7, 23.",
    "Who lives in the mill?", "Which is larger, 512 or 498?", "Count from 17 to 24.",
)  # fmt: skip
READ = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1)


def texts(num_texts: int, max_tokens: int) -> list[list[int]]:
    """What the model in bfloat16 writes at temperature 1, question and answer."""
    with LLM("builtin", dtype="bfloat16") as llm:
        asked = [
            llm.chat_prompt([{"role": "user", "content": QUESTIONS[i % len(QUESTIONS)]}]) for i in range(num_texts)
        ]
        params = [SamplingParams(max_tokens=max_tokens, temperature=1.0, seed=i) for i in range(num_texts)]
        outputs = llm.generate(asked, params)
    return [prompt + list(output.outputs[0].token_ids) for prompt, output in zip(asked, outputs, strict=True)]


def most_likely(written: list[list[int]], **settings: Any) -> list[int]:
    """The most likely token at every position of every text."""
    with LLM("builtin", dtype="bfloat16", enable_prefix_caching=False, **settings) as llm:
        read = llm.generate(written, READ)
    return [next(iter(at.top)) for output in read for at in output.prompt_logprobs or () if at is not None]


def agreement(num_texts: int, max_tokens: int) -> tuple[float, int]:
    """Share of the positions where int8 and bfloat16 have the same most likely token, and their number."""
    written = texts(num_texts, max_tokens)
    exact, quantized = most_likely(written), most_likely(written, quantization="int8")
    assert len(exact) == len(quantized) == sum(len(text) - 1 for text in written)
    return sum(a == b for a, b in zip(exact, quantized, strict=True)) / len(exact), len(exact)


def test_the_most_likely_token_is_mostly_the_same() -> None:
    share, count = agreement(8, 24)
    assert count > 200
    assert share >= 0.96  # of some hundred positions; the figure that is promised is of thousands


@pytest.mark.slow
def test_at_least_98_of_100_over_thousands_of_positions() -> None:
    share, count = agreement(96, 80)
    assert count > 3000
    assert share >= 0.98, f"{share:.2%} of {count} positions"
