"""POST /v1/messages and /v1/messages/count_tokens by Anthropic's client."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tests.contract.asks import ANSWER, ASK, SCHEMAS

TOOLS: Any = [{"name": name, "description": "A tool.", "input_schema": schema} for name, schema in SCHEMAS.items()]


def message(claude: anthropic.Anthropic, *, stream: bool = False, **fields: Any) -> Any:
    """A whole message, also of a stream."""
    arguments = {"model": "builtin", "max_tokens": 48, "messages": ASK, **fields}
    if not stream:
        return claude.messages.create(**arguments)
    with claude.messages.stream(**arguments) as events:
        return events.get_final_message()


@pytest.mark.parametrize("stream", [False, True])
def test_a_message(claude: anthropic.Anthropic, stream: bool) -> None:
    answer = message(claude, stream=stream)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "builtin")
    assert [(block.type, block.text) for block in answer.content] == [("text", ANSWER)]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.id.startswith("msg_")
    assert answer.usage.output_tokens > 10


def test_the_events_of_a_stream(claude: anthropic.Anthropic) -> None:
    events: Any = claude.messages.create(model="builtin", max_tokens=48, messages=ASK, stream=True)
    types = [event.type for event in events]
    deltas = types.count("content_block_delta")
    assert deltas > 10
    middle = ["content_block_start", *["content_block_delta"] * deltas, "content_block_stop"]
    assert [name for name in types if name != "ping"] == ["message_start", *middle, "message_delta", "message_stop"]


def test_text_stream(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="builtin", max_tokens=48, messages=ASK) as stream:
        assert "".join(stream.text_stream) == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_why_it_stopped(claude: anthropic.Anthropic, stream: bool) -> None:
    short = message(claude, stream=stream, max_tokens=3)
    assert (short.stop_reason, short.content[0].text, short.usage.output_tokens) == ("max_tokens", "I am the", 3)
    stopped = message(claude, stream=stream, stop_sequences=["headrace", "x"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "headrace")
    assert stopped.content[0].text == "I am the built-in model of "


def test_sampling(claude: anthropic.Anthropic) -> None:
    def drawn(**fields: Any) -> str:
        found: str = message(claude, max_tokens=32, extra_body={"temperature": 2.0, **fields}).content[0].text
        return found

    assert drawn(seed=4, ignore_eos=True) == drawn(seed=4, ignore_eos=True) != drawn(seed=5, ignore_eos=True)
    for narrow in ({"top_k": 1}, {"top_p": 0.0001}, {"min_p": 1.0}):
        assert drawn(**narrow) == ANSWER


def test_system_and_blocks_and_counting(claude: anthropic.Anthropic) -> None:
    conversation: Any = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "The time?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "tool_use", "id": "t1", "name": "time", "input": {"zone": "UTC"}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Noon."}]},
            {"role": "user", "content": "And now?"},
        ],
        "tools": TOOLS,
    }
    counted = claude.messages.count_tokens(model="builtin", **conversation).input_tokens
    usage = message(claude, **conversation).usage
    assert usage.input_tokens + usage.cache_read_input_tokens == counted
    assert counted > claude.messages.count_tokens(model="builtin", messages=ASK).input_tokens


def test_cached_tokens(claude: anthropic.Anthropic) -> None:
    long: Any = [{"role": "user", "content": "Tell me about the old bridge at night. " * 20}]
    cold = message(claude, messages=long, max_tokens=1).usage
    warm = message(claude, messages=long, max_tokens=1).usage
    assert cold.cache_read_input_tokens == 0
    assert warm.cache_read_input_tokens > 100
    assert warm.input_tokens + warm.cache_read_input_tokens == cold.input_tokens


def test_fields_without_effect(claude: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    answer = message(claude, metadata={"user_id": "u"}, service_tier="auto")
    assert answer.content[0].text == ANSWER
    assert message(claude, max_tokens=2000, thinking=thinking).content[-1].text == ANSWER


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["weather", "time"])
def test_a_call_that_is_demanded(claude: anthropic.Anthropic, name: str, stream: bool) -> None:
    import jsonschema

    choice: Any = {"type": "tool", "name": name}
    answer = message(claude, stream=stream, tools=TOOLS, tool_choice=choice, max_tokens=200)
    (block,) = answer.content
    assert (block.type, block.name, answer.stop_reason) == ("tool_use", name, "tool_use")
    jsonschema.validate(block.input, SCHEMAS[name])


@pytest.mark.parametrize("stream", [False, True])
def test_any_call_and_none(claude: anthropic.Anthropic, stream: bool) -> None:
    import jsonschema

    choice: Any = {"type": "any", "disable_parallel_tool_use": True}
    answer = message(claude, stream=stream, tools=TOOLS, tool_choice=choice, max_tokens=200)
    (block,) = answer.content
    jsonschema.validate(block.input, SCHEMAS[block.name])
    for choice in ({"type": "none"}, {"type": "auto"}):
        answer = message(claude, stream=stream, tools=TOOLS, tool_choice=choice)
        assert [block.type for block in answer.content] == ["text"]


def test_what_is_wrong(claude: anthropic.Anthropic) -> None:
    image: Any = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        message(claude, messages=image)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert (body["error"]["param"], body["error"]["code"]) == ("messages[0].content[0].type", "unsupported_field")
    assert body["request_id"] == caught.value.response.headers["x-request-id"]
    with pytest.raises(anthropic.NotFoundError):
        message(claude, model="claude-9")
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        message(claude, max_tokens=0)
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        claude.messages.count_tokens(model="builtin", messages=[])


def test_models_by_anthropics_client(claude: anthropic.Anthropic) -> None:
    (card,) = claude.models.list().data
    assert (card.id, card.type) == ("builtin", "model")
    assert claude.models.retrieve("builtin").created_at == card.created_at
