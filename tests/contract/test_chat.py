"""POST /v1/chat/completions by OpenAI's client: answers, streams, lengths, ends."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.asks import ANSWER, ASK, chat, text


def pieces(stream: Any) -> tuple[dict[int, str], dict[int, str], list[Any]]:
    """Text and finish reason by choice, and all chunks."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    chunks = list(stream)
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        assert choice.index not in reasons, "a choice goes on after its end"
        texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
        if choice.finish_reason:
            reasons[choice.index] = choice.finish_reason
    return texts, reasons, chunks


def test_an_answer(client: openai.OpenAI) -> None:
    answer = chat(client)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "stop")
    assert (answer.object, answer.model) == ("chat.completion", "builtin")
    assert answer.id.startswith("chatcmpl-")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens > 10


def test_a_stream_is_the_answer(client: openai.OpenAI) -> None:
    texts, reasons, chunks = pieces(chat(client, stream=True))
    assert (texts, reasons) == ({0: ANSWER}, {0: "stop"})
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" and chunk.usage is None for chunk in chunks)
    assert len(chunks) > 10


def test_usage_at_the_end_of_a_stream(client: openai.OpenAI) -> None:
    whole = chat(client).usage
    _, _, chunks = pieces(chat(client, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    last = chunks[-1].usage
    assert (last.prompt_tokens, last.completion_tokens) == (whole.prompt_tokens, whole.completion_tokens)


def test_usage_in_every_chunk(client: openai.OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    _, _, chunks = pieces(chat(client, stream=True, stream_options=options))
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == chat(client).usage.completion_tokens


def test_the_clients_own_helper_streams(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="builtin", messages=ASK, max_tokens=48) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == ANSWER


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
def test_most_tokens(client: openai.OpenAI, name: str, stream: bool) -> None:
    fields: dict[str, Any] = {"max_tokens": openai.omit, name: 3}
    if stream:
        texts, reasons, _ = pieces(chat(client, stream=True, **fields))
        assert (texts, reasons) == ({0: "I am the"}, {0: "length"})
        return
    answer = chat(client, **fields)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 3)
    assert answer.choices[0].message.content == "I am the"


def test_no_length_is_as_much_as_there_is_room_for(client: openai.OpenAI) -> None:
    assert text(client, max_tokens=openai.omit) == ANSWER


@pytest.mark.parametrize("stop", ["headrace", ["nothing of it", "headrace", "language"], ["head"]])
@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_are_not_part_of_the_answer(client: openai.OpenAI, stop: Any, stream: bool) -> None:
    expected = "I am the built-in model of "
    if stream:
        texts, reasons, _ = pieces(chat(client, stop=stop, stream=True))
        assert (texts, reasons) == ({0: expected}, {0: "stop"})
        return
    (choice,) = chat(client, stop=stop).choices
    assert (choice.message.content, choice.finish_reason) == (expected, "stop")
    assert choice.stop_reason == ("head" if stop == ["head"] else "headrace")


def test_stop_token_ids(client: openai.OpenAI) -> None:
    ids = chat(client, return_token_ids=True).choices[0].token_ids
    (choice,) = chat(client, stop_token_ids=[ids[3]]).choices
    assert (choice.finish_reason, choice.stop_reason) == ("stop", ids[3])
    assert choice.message.content == "I am the"


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers(client: openai.OpenAI, stream: bool) -> None:
    fields: dict[str, Any] = {"n": 3, "temperature": 1.5, "seed": 5, "max_tokens": 12}
    whole = chat(client, **fields)
    texts = {choice.index: choice.message.content for choice in whole.choices}
    assert sorted(texts) == [0, 1, 2]
    assert len(set(texts.values())) > 1
    if stream:
        streamed, reasons, _ = pieces(chat(client, stream=True, **fields))
        assert streamed == texts
        assert sorted(reasons) == [0, 1, 2]
    else:
        assert whole.usage.completion_tokens == 36
        assert whole.usage.prompt_tokens == chat(client).usage.prompt_tokens


def test_roles_and_parts(client: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Who are"}, {"type": "text", "text": "you?"}],
            "name": "a",
        },
        {"role": "assistant", "content": "A model."},
        {"role": "user", "content": "Who are you?"},
    ]
    assert chat(client, messages).usage.prompt_tokens > chat(client).usage.prompt_tokens


def test_going_on_from_the_assistants_words(client: openai.OpenAI) -> None:
    messages: Any = [*ASK, {"role": "assistant", "content": "I am the built-in"}]
    rest = text(client, messages, continue_final_message=True, add_generation_prompt=False)
    assert "I am the built-in" + rest == ANSWER


def test_cached_tokens_are_told_and_salts_keep_prefixes_apart(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "Tell me about the small town by the river. " * 20}]

    def cached(salt: str) -> int:
        usage = chat(client, long, cache_salt=salt, max_tokens=1).usage
        found: int = usage.prompt_tokens_details.cached_tokens
        assert found < usage.prompt_tokens
        return found

    assert cached("one") == 0
    assert cached("one") > 100
    assert cached("two") == 0


def test_token_ids_of_prompt_and_answer(client: openai.OpenAI) -> None:
    answer = chat(client, return_token_ids=True)
    assert len(answer.prompt_token_ids) == answer.usage.prompt_tokens
    assert len(answer.choices[0].token_ids) == answer.usage.completion_tokens
    chunks = list(chat(client, return_token_ids=True, stream=True))
    streamed = [i for chunk in chunks for c in chunk.choices for i in (c.model_extra or {}).get("token_ids") or ()]
    assert streamed == answer.choices[0].token_ids
    assert chunks[0].prompt_token_ids == answer.prompt_token_ids


def test_reasoning_fields_are_taken(client: openai.OpenAI) -> None:
    assert text(client, reasoning_effort="low", include_reasoning=False, reasoning={"exclude": True}) == ANSWER
    assert text(client, chat_template_kwargs={"enable_thinking": False}) == ANSWER


async def _several(url: str) -> list[str]:
    import asyncio

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def one(number: int) -> str:
            stream: Any = await client.chat.completions.create(
                model="builtin", messages=ASK, max_tokens=5 + number, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        return await asyncio.gather(*(one(number) for number in range(8)))


def test_the_asynchronous_client_side_by_side(server: Any) -> None:
    import asyncio

    answers = asyncio.run(_several(server.url))
    assert all(ANSWER.startswith(answer) and answer for answer in answers)
    assert len(set(answers)) == 8
