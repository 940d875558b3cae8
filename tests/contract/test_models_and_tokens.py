"""The endpoints that generate nothing: models, tokens, health, load, versions, metrics, administration."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version

import openai
import pytest

from tests.contract.asks import ASK, TOOLS, chat
from tests.contract.process import Server, is_idle, seconds_until


def test_models(client: openai.OpenAI) -> None:
    (card,) = client.models.list().data
    assert (card.id, card.object, card.owned_by) == ("builtin", "model", "headrace")
    assert client.models.retrieve("builtin") == card
    assert card.model_extra is not None
    assert card.model_extra["max_model_len"] == 4096
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("a/model/of/others")
    assert caught.value.code == "model_not_found"


def test_a_text_to_tokens_and_back(server: Server) -> None:
    text = "Mira öffnet — 雪 and 🙂\n"
    found = server.post("/tokenize", {"model": "builtin", "prompt": text, "return_token_strs": True}).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == 4096
    assert server.post("/detokenize", {"tokens": found["tokens"]}).json() == {"prompt": text}


def test_a_conversation_has_the_tokens_that_chat_counts(server: Server, client: openai.OpenAI) -> None:
    for more in ({}, {"tools": TOOLS}):
        found = server.post("/tokenize", {"messages": ASK, **more}).json()
        assert found["count"] == chat(client, **more).usage.prompt_tokens
    without = server.post("/tokenize", {"messages": ASK, "add_generation_prompt": False}).json()
    assert without["count"] < found["count"]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/tokenize", {}, 400),
        ("/tokenize", {"prompt": 3}, 400),
        ("/tokenize", {"prompt": "x", "messages": ASK}, 400),
        ("/tokenize", {"prompt": "x", "model": "other"}, 404),
        ("/detokenize", {"tokens": [10**12]}, 400),
        ("/detokenize", {"tokens": "x"}, 400),
        ("/detokenize", {}, 400),
    ],
)
def test_tokens_that_cannot_be(server: Server, path: str, body: object, code: int) -> None:
    answer = server.post(path, body)
    assert answer.status_code == code
    assert answer.json()["error"]["code"]


def test_health_and_version(server: Server) -> None:
    assert server.get("/health/live").json() == {"status": "alive"}
    for path in ("/health", "/health/ready"):
        assert server.get(path).json() == {"status": "ready", "engine": "ready"}
    assert server.get("/version").json()["version"] == version("headrace")


def test_load_as_json_and_in_the_head_of_every_answer(server: Server) -> None:
    load = server.get("/load").json()
    assert load["num_running"] == load["num_waiting"] == 0
    assert load["max_num_seqs"] == 64
    for path in ("/load", "/health", "/v1/models", "/no-such-path", "/metrics"):
        header = dict(part.split("=") for part in server.get(path).headers["x-headrace-load"].split(","))
        assert set(header) == {"running", "waiting", "tokens", "kv"}


def test_metrics_count_what_is_served(server: Server, client: openai.OpenAI) -> None:
    def value(name: str) -> float:
        lines = server.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    before = value("vllm:generation_tokens_total"), value("headrace_requests_finished_total")
    chat(client, max_tokens=7, ignore_eos=True)
    assert value("vllm:generation_tokens_total") - before[0] == 7
    assert value("headrace_requests_finished_total") - before[1] == 1


def test_state_and_integrity(server: Server) -> None:
    seconds_until(lambda: is_idle(server.state()))
    answer = server.get("/admin/integrity")
    assert (answer.status_code, answer.json()["ok"]) == (200, True)


def test_a_profile(server: Server, client: openai.OpenAI) -> None:
    answer = server.post("/admin/profile", {"duration_s": 0.05})
    assert answer.status_code == 200, answer.text
    for path in _paths(answer.json()):
        shutil.rmtree(path if os.path.isdir(path) else os.path.dirname(path), ignore_errors=True)


def _paths(found: object) -> list[str]:
    """Every path in an answer: what the server wrote goes away with the test."""
    if isinstance(found, dict):
        return [path for item in found.values() for path in _paths(item)]
    if isinstance(found, list):
        return [path for item in found for path in _paths(item)]
    return [found] if isinstance(found, str) and "headrace-profile-" in found else []


def test_unknown_paths_and_methods(server: Server) -> None:
    assert server.get("/v1/embeddings").json()["error"]["code"] == "not_found"
    answer = server.get("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_the_document_is_a_valid_one(server: Server) -> None:
    from openapi_spec_validator import validate

    document = json.loads(server.get("/openapi.json").text)
    validate(document)
    assert len(document["paths"]) == 20
