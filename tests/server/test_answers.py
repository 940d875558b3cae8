"""Every route that generates, over an engine with a cost model: whole answers, streams, and what is said of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.config import EngineConfig, ServerConfig
from headrace.text import Tokenizer
from tests.server.service import Service, chat, events, in_loop, serving, tokenizer

CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(seed=3),
    "/v1/completions": {"prompt": "hello", "max_tokens": 8, "seed": 3},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "model": "builtin"},
    "/v1/responses": {"input": "hello", "max_output_tokens": 8},
}


@pytest.mark.parametrize("path", CALLS)
@in_loop
async def test_every_endpoint_answers_and_streams(path: str) -> None:
    async with serving() as service:
        whole = await service.client.post(path, json=CALLS[path])
        assert whole.status_code == 200, whole.text
        assert whole.json()["model"] == "builtin"
        streamed = await service.client.post(path, json=CALLS[path] | {"stream": True})
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert len(events(streamed.text)) >= 3
        await service.idle()
        assert service.app.num_active == 0


async def text_of(service: Service, **fields: Any) -> str:
    answer = (await service.chat(**fields)).json()
    content: str = answer["choices"][0]["message"]["content"]
    return content


def streamed_text(text: str) -> str:
    chunks = [event for event in events(text) if event != "[DONE]" and event["choices"]]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


@in_loop
async def test_a_stream_is_the_whole_answer_in_pieces() -> None:
    async with serving() as service:
        for seed in range(8):
            fields = {"seed": seed, "max_tokens": 60}
            streamed = await service.chat(stream=True, **fields)
            assert streamed_text(streamed.text) == await text_of(service, **fields)


@in_loop
async def test_usage_counts_what_the_engine_counted() -> None:
    async with serving(engine_config=EngineConfig(block_size=4)) as service:
        first = (await service.chat(max_tokens=5)).json()["usage"]
        again = (await service.chat(max_tokens=5)).json()["usage"]
        streamed = await service.chat(max_tokens=5, stream=True, stream_options={"include_usage": True})
        last = events(streamed.text)[-2]["usage"]
    assert first["completion_tokens"] == again["completion_tokens"] == last["completion_tokens"] == 5
    assert first["prompt_tokens"] == again["prompt_tokens"] == last["prompt_tokens"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert again["prompt_tokens_details"]["cached_tokens"] == last["prompt_tokens_details"]["cached_tokens"] > 0


@in_loop
async def test_several_answers_to_several_prompts_keep_their_places() -> None:
    body = {"prompt": ["hello", [70, 71, 72]], "n": 2, "max_tokens": 30, "seed": 9}
    async with serving() as service:
        whole = (await service.client.post("/v1/completions", json=body)).json()
        streamed = await service.client.post("/v1/completions", json=body | {"stream": True})
        alone = (await service.client.post("/v1/completions", json=body | {"prompt": [70, 71, 72], "n": 1})).json()
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    texts = {0: "", 1: "", 2: "", 3: ""}
    for event in events(streamed.text)[:-1]:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert alone["choices"][0]["text"] == texts[2]
    assert len(set(texts.values())) == 4


@pytest.mark.parametrize("stream", [False, True])
@in_loop
async def test_a_stop_string_ends_the_answer_and_the_work(stream: bool) -> None:
    async with serving(step_s=0.001) as service:
        text = await text_of(service, seed=5, max_tokens=100)
        stop = text[40:44]
        answer = await service.chat(seed=5, max_tokens=2000, stop=[stop], stream=stream)
        if stream:
            found, last = streamed_text(answer.text), events(answer.text)[-2]
        else:
            last = answer.json()
            found = last["choices"][0]["message"]["content"]
        assert found == text[: text.index(stop)]
        assert (last["choices"][0]["finish_reason"], last["choices"][0]["stop_reason"]) == ("stop", stop)
        await service.idle(1.0)  # 2,000 steps would take longer


@in_loop
async def test_log_probabilities_name_the_tokens() -> None:
    async with serving() as service:
        answer = (await service.chat(logprobs=True, top_logprobs=2, max_tokens=5, seed=1)).json()["choices"][0]
        streamed = await service.chat(logprobs=True, top_logprobs=2, max_tokens=5, seed=1, stream=True)
    content = answer["logprobs"]["content"]
    assert len(content) == 5
    assert all(len(item["top_logprobs"]) == 2 for item in content)
    assert bytes(b for item in content for b in item["bytes"]).decode() == answer["message"]["content"]
    chunks = [event["choices"][0]["logprobs"] for event in events(streamed.text)[:-1] if event["choices"]]
    assert [item for chunk in chunks if chunk for item in chunk["content"]] == content


@in_loop
async def test_echo_and_prompt_logprobs() -> None:
    body = {"prompt": "hello", "max_tokens": 0, "echo": True, "logprobs": 1}
    async with serving() as service:
        choice = (await service.client.post("/v1/completions", json=body)).json()["choices"][0]
        listed = (await service.chat(prompt_logprobs=1)).json()["prompt_logprobs"]
    assert choice["text"] == "hello"
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert "".join(choice["logprobs"]["tokens"]) == "hello"
    assert listed[0] is None
    assert all(listed[1:])


@in_loop
async def test_what_is_wrong_is_said_before_anything_runs() -> None:
    async with serving(max_model_len=64) as service:
        for fields, status, code in (
            ({"model": "gpt-9"}, 404, "model_not_found"),
            ({"temperature": -1}, 400, "invalid_parameter"),
            ({"messages": []}, 400, "invalid_parameter"),
            ({"messages": [{"role": "user", "content": "word " * 200}]}, 400, "prompt_too_long"),
            ({"logit_bias": {"99999": 1}}, 400, "invalid_parameter"),
        ):
            answer = await service.chat(**fields)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
            assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
        assert (service.app.line.num_pending, service.app.num_active) == (0, 0)


@in_loop
async def test_anthropic_clients_get_their_own_form_of_errors() -> None:
    async with serving() as service:
        answer = await service.client.post("/v1/messages", json={"messages": []})
        unknown = await service.client.post("/v1/messages", content=b"{nonsense")
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    assert unknown.json()["error"]["type"] == "invalid_request_error"


@in_loop
async def test_ignored_fields_are_named_and_strict_servers_refuse_them() -> None:
    async with serving() as service:
        answer = await service.chat(**{"foo": 1, "bär\r\nx: y": 2})
        assert answer.headers["x-ignored-fields"] == "foo,b\\xe4r??x: y"
        assert "x" not in answer.headers
    async with serving(ServerConfig(strict_fields=True)) as service:
        answer = await service.chat(foo=1)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_field")


@in_loop
async def test_a_failure_in_mid_stream_is_an_event() -> None:
    async with serving(step_s=0.002) as service:
        answer = asyncio.create_task(service.chat(stream=True, max_tokens=2000))
        while service.app.line.num_running == 0:
            await asyncio.sleep(0.001)
        await service.engine.stop(0.0)
        received = await answer
        assert received.status_code == 200
        last = events(received.text)[-1]
        assert last["error"]["code"] == "engine_stopped"
        assert last["error"]["request_id"] == received.headers["x-request-id"]


@in_loop
async def test_a_failure_before_the_first_token_is_a_status() -> None:
    async with serving(step_s=0.3) as service:
        answers = [asyncio.create_task(service.chat(stream=stream, max_tokens=50)) for stream in (True, False)]
        while service.app.line.num_pending < 2:
            await asyncio.sleep(0.001)
        await service.engine.stop(0.0)
        for answer in answers:
            received = await answer
            assert received.status_code == 503
            assert received.json()["error"]["code"] == "engine_stopped"
        refused = await service.chat()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert service.app.line.num_pending == 0


@in_loop
async def test_a_tokenizer_that_raises_ends_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(step_s=0.002) as service:
        backend = service.app.backend
        assert backend is not None
        backend.tokenizer = Broken(tokenizer().inner)
        broken = await service.chat(stream=True, max_tokens=500)
        backend.tokenizer = tokenizer()
        assert events(broken.text)[-1]["error"]["code"] == "request_failed"
        await service.idle()
        assert (await service.chat()).status_code == 200


class Broken(Tokenizer):
    """Decodes a few tokens, and then never again."""

    _num = 0

    def decode(self, token_ids: Any, *, skip_special_tokens: bool = True) -> str:
        self._num += 1
        if self._num > 20:
            raise ValueError("no")
        return super().decode(token_ids, skip_special_tokens=skip_special_tokens)


@in_loop
async def test_the_queue_is_bounded_and_says_when_to_try_again() -> None:
    config = ServerConfig(max_queue_size=2)
    async with serving(config, engine_config=EngineConfig(max_num_seqs=1), step_s=0.01) as service:
        first = [asyncio.create_task(service.chat(max_tokens=30)) for _ in range(3)]
        while service.app.line.num_pending + service.app.line.num_running < 3:
            await asyncio.sleep(0.001)
        refused = await service.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert [(await answer).status_code for answer in first] == [200, 200, 200]


@in_loop
async def test_a_request_that_waits_too_long_is_told_so() -> None:
    config = ServerConfig(queue_timeout_s=0.1)
    async with serving(config, engine_config=EngineConfig(max_num_seqs=1), step_s=0.01) as service:
        first = asyncio.create_task(service.chat(max_tokens=100))
        while service.app.line.num_running == 0:
            await asyncio.sleep(0.001)
        for stream in (False, True):
            late = await service.chat(stream=stream)
            assert (late.status_code, late.json()["error"]["code"]) == (503, "queue_timeout")
        assert (await first).status_code == 200


@in_loop
async def test_streams_per_key_are_bounded() -> None:
    async with serving(ServerConfig(max_streams_per_key=1), step_s=0.01) as service:
        first = asyncio.create_task(service.chat(max_tokens=30))
        while service.app.line.num_running == 0:
            await asyncio.sleep(0.001)
        refused = await service.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
        assert (await first).status_code == 200
        assert (await service.chat()).status_code == 200
