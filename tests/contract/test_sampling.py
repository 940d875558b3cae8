"""What changes how tokens are drawn, through OpenAI's client: each field has the effect that docs/api.md promises."""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest

from tests.contract.asks import ANSWER, ASK, chat, complete, text

HOT: dict[str, Any] = {"temperature": 2.0, "max_tokens": 16, "ignore_eos": True}


def ids(client: openai.OpenAI, **fields: Any) -> list[int]:
    found: list[int] = chat(client, return_token_ids=True, **fields).choices[0].token_ids
    return found


def test_the_same_seed_gives_the_same_text(client: openai.OpenAI) -> None:
    first = text(client, seed=7, **HOT)
    assert text(client, seed=7, **HOT) == first
    assert "".join(c.choices[0].delta.content or "" for c in chat(client, seed=7, stream=True, **HOT)) == first
    assert text(client, seed=8, **HOT) != first


def test_without_a_seed_answers_differ(client: openai.OpenAI) -> None:
    assert len({text(client, **HOT) for _ in range(3)}) > 1


@pytest.mark.parametrize("narrow", [{"temperature": 0}, {"top_k": 1}, {"top_p": 0.0001}, {"min_p": 1.0}])
def test_what_leaves_one_token_is_greedy(client: openai.OpenAI, narrow: dict[str, Any]) -> None:
    assert text(client, **{"temperature": 2.0, "seed": 3, **narrow}) == ANSWER


def test_logprobs_are_those_of_the_greedy_choice(client: openai.OpenAI) -> None:
    answer = chat(client, logprobs=True, top_logprobs=4, max_tokens=12)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    assert "".join(item.token for item in content) == answer.choices[0].message.content
    for item in content:
        values = [top.logprob for top in item.top_logprobs]
        assert len(values) == 4
        assert values == sorted(values, reverse=True)
        assert (item.token, item.logprob) == (item.top_logprobs[0].token, values[0])
        assert bytes(item.bytes).decode() == item.token
        assert sum(math.exp(value) for value in values) <= 1.0 + 1e-6


def test_logprobs_of_a_stream_are_the_same(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "max_tokens": 8}
    whole = chat(client, **fields).choices[0].logprobs.content
    chunks = [c.choices[0].logprobs for c in chat(client, stream=True, **fields)]
    streamed = [item for part in chunks if part for item in part.content]
    assert [(i.token, i.bytes) for i in streamed] == [(i.token, i.bytes) for i in whole]
    assert [i.logprob for i in streamed] == pytest.approx([i.logprob for i in whole], abs=0.1)


def test_logprobs_without_alternatives(client: openai.OpenAI) -> None:
    content = chat(client, logprobs=True, max_tokens=4).choices[0].logprobs.content
    assert [item.top_logprobs for item in content] == [[]] * 4
    assert chat(client, max_tokens=4).choices[0].logprobs is None


def test_logprobs_are_of_the_raw_distribution(client: openai.OpenAI) -> None:
    cold = chat(client, logprobs=True, max_tokens=1).choices[0].logprobs.content[0]
    hot = chat(client, logprobs=True, max_tokens=1, temperature=2.0, top_k=1).choices[0].logprobs.content[0]
    assert hot.token == cold.token
    assert hot.logprob == pytest.approx(cold.logprob, abs=0.01)


def test_tokens_as_ids(client: openai.OpenAI) -> None:
    answer = chat(client, logprobs=True, max_tokens=3, return_tokens_as_token_ids=True, return_token_ids=True)
    names = [item.token for item in answer.choices[0].logprobs.content]
    assert names == [f"token_id:{token}" for token in answer.choices[0].token_ids]


def test_prompt_logprobs(client: openai.OpenAI) -> None:
    answer = chat(client, prompt_logprobs=2, max_tokens=1, return_token_ids=True)
    first, *rest = answer.prompt_logprobs
    assert first is None
    assert len(rest) + 1 == answer.usage.prompt_tokens
    for token, position in zip(answer.prompt_token_ids[1:], rest, strict=True):
        own = position[str(token)]
        best = max(position.values(), key=lambda item: item["logprob"])
        assert best["rank"] == 1
        assert own["rank"] >= 1
        assert own["logprob"] <= best["logprob"] <= 0


def test_a_bias_bans_and_forces(client: openai.OpenAI) -> None:
    first, second = ids(client, max_tokens=2)
    assert ids(client, max_tokens=1, logit_bias={str(first): -100}) != [first]
    assert ids(client, max_tokens=4, logit_bias={str(second): 100}) == [second] * 4


def test_a_frequency_penalty_ends_repetition(client: openai.OpenAI) -> None:
    letter = ids(client, max_tokens=1)[0]
    forced = {"logit_bias": {str(letter): 30}, "max_tokens": 40, "ignore_eos": True}
    assert ids(client, **forced).count(letter) == 40
    assert 0 < ids(client, frequency_penalty=2.0, **forced).count(letter) < 40


def test_a_presence_penalty_takes_off_once(client: openai.OpenAI) -> None:
    # The bias puts one token so far ahead that 2 off once is nothing, and 2 off for each time it came is.
    letter = ids(client, max_tokens=1)[0]
    forced = {"logit_bias": {str(letter): 40}, "max_tokens": 40, "ignore_eos": True}
    assert ids(client, presence_penalty=2.0, **forced).count(letter) == 40
    assert ids(client, frequency_penalty=2.0, **forced).count(letter) < 40


def test_a_repetition_penalty_changes_what_was_said(client: openai.OpenAI) -> None:
    plain = ids(client, max_tokens=40, ignore_eos=True)
    punished = ids(client, max_tokens=40, ignore_eos=True, repetition_penalty=3.0)
    assert len(set(punished)) > len(set(plain))


def test_ignore_eos_goes_on_to_the_length(client: openai.OpenAI) -> None:
    answer = chat(client, ignore_eos=True, max_tokens=60)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 60)
    assert answer.choices[0].message.content.startswith(ANSWER)


def test_min_tokens_puts_the_end_off(client: openai.OpenAI) -> None:
    plain = chat(client).usage.completion_tokens
    longer = chat(client, min_tokens=plain + 5)
    assert longer.usage.completion_tokens >= plain + 5
    assert chat(client, min_tokens=plain - 2).usage.completion_tokens == plain


def test_special_tokens_are_left_out_unless_wanted(client: openai.OpenAI) -> None:
    fields = {"ignore_eos": True, "max_tokens": 30}
    assert "<|im_end|>" not in text(client, **fields)
    assert "<|im_end|>" in text(client, skip_special_tokens=False, **fields)


@pytest.mark.parametrize("priority", [-5, 0, 5])
def test_priorities_are_taken(client: openai.OpenAI, priority: int) -> None:
    assert text(client, priority=priority) == ANSWER


def test_a_completion_draws_as_a_chat_does(client: openai.OpenAI) -> None:
    prompt = chat(client, ASK, max_tokens=1, return_token_ids=True).prompt_token_ids
    assert complete(client, prompt, max_tokens=16, seed=9, temperature=1.5).choices[0].text == text(
        client, seed=9, temperature=1.5, max_tokens=16
    )
