"""What a refusal says: what happened, with true numbers, and what would have worked."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from headrace.config import ServerConfig
from headrace.errors import AddressNotAvailable
from headrace.server.listen import bind
from tests.server.service import Service, chat, events, in_loop, request_bytes, serving

SCHEMA_BEYOND = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
"""uniqueItems is not enforced: it is refused, or left out where strict is false."""
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def refusal(service: Service, path: str = "/v1/chat/completions", **fields: Any) -> dict[str, Any]:
    answer = await service.client.post(path, json=fields if path != "/v1/chat/completions" else chat(**fields))
    assert answer.status_code >= 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


def formatted(strict: bool) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA_BEYOND, "strict": strict}}


@in_loop
async def test_a_schema_that_cannot_be_enforced_is_refused_unless_it_says_that_it_need_not_be() -> None:
    async with serving() as service:
        error = await refusal(service, response_format=formatted(strict=True))
        assert error["param"] == "response_format.json_schema.schema"
        assert "uniqueItems" in error["message"]
        answer = await service.chat(response_format=formatted(strict=False))
        assert answer.status_code == 200, answer.text


@in_loop
async def test_a_schema_that_nothing_follows_is_refused_in_words() -> None:
    endless = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    async with serving() as service:
        error = await refusal(service, guided_json=endless)
        assert error["code"] == "invalid_guide"
        assert "leads back to itself" in error["message"]


@in_loop
async def test_two_rules_are_refused_by_what_they_ask_for() -> None:
    async with serving() as service:
        error = await refusal(service, response_format={"type": "json_object"}, tools=TOOLS, tool_choice="auto")
        assert error["message"].startswith('response_format="json_object" is not supported')


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"messages": [{"role": "user", "content": "a " * 6000}]}, "at most 4095 tokens"),
        ({"messages": [{"role": "user", "content": "z" * 9000}]}, "at most 4095 tokens, "),
        ({"model": "another"}, "builtin"),
        ({"max_tokens": 10**30}, "between 1 and 9223372036854775807"),
        ({"seed": 2**70}, "between -9223372036854775808 and"),
        ({"temperature": 1e305}, "of a size below 1e+300"),
        ({"chat_template_kwargs": {"tools": 3}}, "it has a field of its own"),
    ],
    ids=lambda value: str(value)[:30],
)
@in_loop
async def test_the_hint_is_what_would_work(fields: dict[str, Any], hint: str) -> None:
    async with serving(max_model_len=4096) as service:
        assert hint in (await refusal(service, **fields))["hint"]


@in_loop
async def test_a_token_id_that_there_is_not_is_named() -> None:
    async with serving() as service:
        for path, field in (("/detokenize", "tokens"), ("/v1/completions", "prompt")):
            error = await refusal(service, path, **{field: [3, 5000]})
            assert (error["code"], error["hint"]) == ("token_out_of_range", "0 to 1535")
            assert "5000" in error["message"]


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions/", "/chat/completions", "//v1/chat/completions", "/v1/v1/chat/completions"]
)
@in_loop
async def test_a_wrong_base_address_is_answered_with_the_right_path(path: str) -> None:
    async with serving() as service:
        answer = await service.client.post(path, json=chat())
        assert answer.status_code == 404
        assert answer.json()["error"]["hint"] == "did you mean /v1/chat/completions?"


@in_loop
async def test_a_compressed_body_is_refused_as_that() -> None:
    async with serving() as service:
        body = gzip.compress(json.dumps(chat()).encode())
        answer = await service.client.post("/v1/chat/completions", content=body, headers={"content-encoding": "gzip"})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["hint"]) == (415, "unsupported_encoding", "identity")
        as_it_is = await service.client.post(
            "/v1/chat/completions", json=chat(), headers={"content-encoding": "identity"}
        )
        assert as_it_is.status_code == 200


@in_loop
async def test_the_byte_that_is_no_text_is_counted_from_the_body_s_beginning() -> None:
    body = b'{"messages": [{"role": "user", "content": "caf\xe9"}]}'
    async with serving() as service:
        answer = await service.client.post("/v1/chat/completions", content=body)
        assert answer.json()["error"]["message"] == f"the body is not UTF-8: byte {body.index(0xE9)} is 0xe9"


@pytest.mark.parametrize("choice", ["auto", "required", "none"])
@in_loop
async def test_tools_that_the_template_never_mentions_are_listed_as_ignored(choice: str) -> None:
    """But where a call is forced they are what the answer follows, and where they are forbidden nothing is lost."""
    async with serving() as service:
        answer = await service.chat(tools=TOOLS, tool_choice=choice)
        assert answer.status_code == 200
        assert answer.headers.get("x-ignored-fields") == ("tools" if choice == "auto" else None)


@in_loop
async def test_a_stream_for_http_1_0_has_no_chunks_and_ends_with_the_connection() -> None:
    async with serving(sockets=True) as service:
        for stream in (True, False):
            reader, writer = await asyncio.open_connection(*service.address)
            writer.write(request_bytes(chat(stream=stream)).replace(b"HTTP/1.1", b"HTTP/1.0"))
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert b"transfer-encoding" not in head
            assert b"connection: close" in head
            if stream:
                assert events(body.decode())[-1] == "[DONE]"
                assert body.startswith(b"data: ")
            else:
                assert json.loads(body)["usage"]["completion_tokens"] == 8


def test_a_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(AddressNotAvailable, match="is a file or folder, and no socket"):
        bind(ServerConfig(uds=str(path)))
    assert path.read_text() == "mine"
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with taken:
        taken.bind(str(tmp_path / "s"))
        taken.listen()
        with pytest.raises(AddressNotAvailable, match="taken by another process"):
            bind(ServerConfig(uds=str(tmp_path / "s")))
