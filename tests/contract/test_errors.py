"""What goes wrong arrives as the client's own exception, with a code, a hint and the request's id."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.contract.asks import ASK, chat
from tests.contract.process import Server

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "type": ({"temperature": "hot"}, "temperature"),
    "range": ({"top_p": 1.5}, "top_p"),
    "many": ({"n": 5000}, "n"),
    "together": ({"top_logprobs": 3}, "top_logprobs"),
    "token": ({"logit_bias": {"999999": 1}}, "logit_bias"),
    "deep": ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    "role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "empty": ({"messages": []}, "messages"),
    "unsupported": ({"modalities": ["text", "audio"]}, "modalities"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_field_is_named(client: openai.OpenAI, name: str, stream: bool) -> None:
    change, param = BAD[name]
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **{"messages": ASK, **change}, stream=stream)
    error, body = caught.value, caught.value.body
    assert isinstance(body, dict)
    assert (error.param, error.type) == (param, "invalid_request_error")
    assert error.code == ("unsupported_field" if name == "unsupported" else error.code)
    assert body["hint"]
    assert param in body["message"]
    assert body["request_id"] == error.request_id


def test_the_clients_id_is_kept(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="builtin", messages=ASK, max_tokens=1, extra_headers={"x-request-id": "mine-7"}
    )
    assert answer.headers["x-request-id"] == "mine-7"
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, temperature=-1, extra_headers={"x-request-id": "mine-8"})
    assert caught.value.request_id == "mine-8"


def test_ids_of_our_own_differ(client: openai.OpenAI) -> None:
    ids = [client.models.with_raw_response.list().headers["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_another_model_is_not_found(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model="gpt-9", stream=stream)
    assert caught.value.code == "model_not_found"
    assert "builtin" in str(caught.value)


def test_a_prompt_that_is_too_long(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError, match="4096") as caught:
        chat(client, long)
    assert caught.value.code == "prompt_too_long"


def test_more_tokens_than_there_is_room_for(client: openai.OpenAI) -> None:
    answer = chat(client, max_tokens=10_000)
    assert answer.choices[0].finish_reason == "stop"


BODIES: dict[str, bytes] = {
    "empty": b"",
    "cut off": b'{"messages": [',
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "no UTF-8": b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "half a surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "a NaN": b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    "deep": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a huge number": b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 5000 + b"}",
    "zero bytes": b"\x00" * 100,
}
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/tokenize", "/detokenize")


@pytest.mark.parametrize("path", [*PATHS, "/v1/messages/count_tokens", "/admin/profile"])
def test_bodies_that_are_none(server: Server, path: str) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as http:
        for name, body in BODIES.items():
            if path == "/admin/profile" and name == "empty":
                continue  # all of its fields have defaults
            answer = http.post(path, content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 400, (name, answer.text)
            assert answer.json()["error"]["message"]
            assert len(answer.content) < 5000


@pytest.mark.parametrize("path", PATHS)
def test_the_type_of_the_content_is_not_asked_for(server: Server, path: str) -> None:
    answer = httpx.post(server.url + path, content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert "missing" in answer.text or "prompt" in answer.text


def test_a_prompt_with_every_character(server: Server) -> None:
    text = "".join(map(chr, [*range(0x20), *range(0x7F, 0x100), 0x2028, 0xFEFF, 0xFFFD, 0x1F642, 0x10FFFF]))
    body = json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 1})
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=body, timeout=30)
    assert answer.status_code == 200
