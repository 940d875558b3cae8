"""POST /v1/completions by OpenAI's client."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.asks import complete
from tests.contract.process import Server


def by_index(answer: Any, stream: bool) -> dict[int, str]:
    texts: dict[int, str] = {}
    for part in answer if stream else [answer]:
        for choice in part.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    return texts


def token_ids(server: Server, text: str) -> list[int]:
    found: list[int] = server.post("/tokenize", {"prompt": text}).json()["tokens"]
    return found


def test_a_completion(client: openai.OpenAI) -> None:
    answer = complete(client)
    assert (answer.object, answer.choices[0].finish_reason) == ("text_completion", "length")
    assert answer.usage.completion_tokens == 16, "the interface's default"
    assert answer.id.startswith("cmpl-")


@pytest.mark.parametrize("stream", [False, True])
def test_text_and_token_ids_are_the_same_prompt(client: openai.OpenAI, server: Server, stream: bool) -> None:
    ids = token_ids(server, "Mira was")
    expected = complete(client).choices[0].text
    for prompt in ("Mira was", ["Mira was"], ids, [ids]):
        assert by_index(complete(client, prompt, stream=stream), stream) == {0: expected}


@pytest.mark.parametrize("stream", [False, True])
def test_several_prompts_with_several_answers(client: openai.OpenAI, server: Server, stream: bool) -> None:
    fields: dict[str, Any] = {"max_tokens": 6, "n": 2, "seed": 4, "temperature": 1.0}
    for prompts in (["Mira was", "The river"], [token_ids(server, "Mira was"), token_ids(server, "The river")]):
        texts = by_index(complete(client, prompts, stream=stream, **fields), stream)
        assert sorted(texts) == [0, 1, 2, 3]
        first = by_index(complete(client, "Mira was", **fields), False)
        second = by_index(complete(client, "The river", **fields), False)
        assert texts == {**first, 2: second[0], 3: second[1]}


@pytest.mark.parametrize("stream", [False, True])
def test_echo(client: openai.OpenAI, server: Server, stream: bool) -> None:
    plain = complete(client).choices[0].text
    for prompt in ("Mira was", token_ids(server, "Mira was")):
        assert by_index(complete(client, prompt, echo=True, stream=stream), stream) == {0: "Mira was" + plain}


def test_echo_alone(client: openai.OpenAI) -> None:
    answer = complete(client, echo=True, max_tokens=0, logprobs=1)
    assert answer.choices[0].text == "Mira was"
    assert answer.usage.completion_tokens == 0
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client: openai.OpenAI, stream: bool) -> None:
    answer = complete(client, logprobs=3, max_tokens=8, stream=stream)
    parts = [part.choices[0] for part in answer if part.choices] if stream else answer.choices
    found = [part.logprobs for part in parts if part.logprobs]
    tokens = [token for item in found for token in item.tokens]
    values = [value for item in found for value in item.token_logprobs]
    offsets = [offset for item in found for offset in item.text_offset]
    text = "".join(part.text for part in parts)
    assert "".join(tokens) == text
    assert offsets == [len("".join(tokens[:place])) for place in range(len(tokens))]
    for token, value, top in zip(tokens, values, [top for item in found for top in item.top_logprobs], strict=True):
        assert len(top) == 3
        assert value == top[token] == max(top.values()) <= 0


def test_logprobs_with_echo_hold_the_prompt_too(client: openai.OpenAI) -> None:
    answer = complete(client, echo=True, logprobs=1, max_tokens=4)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == answer.usage.total_tokens
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])


def test_usage_at_the_end_of_a_stream(client: openai.OpenAI) -> None:
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 16
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_stop_and_best_of(client: openai.OpenAI) -> None:
    plain = complete(client).choices[0].text
    word = plain.split()[2]
    stopped = complete(client, stop=[word]).choices[0]
    assert (stopped.text, stopped.finish_reason) == (plain[: plain.index(word)], "stop")
    assert complete(client, best_of=1, suffix="").choices[0].text == plain
    with pytest.raises(openai.BadRequestError, match="best_of"):
        complete(client, best_of=2)
    with pytest.raises(openai.BadRequestError, match="suffix"):
        complete(client, suffix="x")


def test_prompt_logprobs_of_each_prompt(client: openai.OpenAI) -> None:
    answer = complete(client, ["Mira was", "The river ran"], prompt_logprobs=0, max_tokens=1, return_token_ids=True)
    for choice in answer.choices:
        assert choice.prompt_logprobs[0] is None
        keys = [list(item) for item in choice.prompt_logprobs[1:]]
        assert keys == [[str(token)] for token in choice.prompt_token_ids[1:]]


def test_without_special_tokens(client: openai.OpenAI) -> None:
    assert complete(client, add_special_tokens=False).usage.prompt_tokens <= complete(client).usage.prompt_tokens


@pytest.mark.parametrize(
    ("prompt", "words"),
    [([], "prompt"), ("", "prompt"), ([[]], "prompt"), ([10**9], "token id"), (["a", 1], "prompt"), ([-1], "-1")],
)
def test_prompts_that_cannot_be(client: openai.OpenAI, prompt: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        complete(client, prompt)
