"""The routes that generate nothing, and what every answer has."""

from __future__ import annotations

import asyncio

import pytest

from headrace.config import EngineConfig, ServerConfig
from headrace.server.backend import Tools
from tests.server.service import VOCAB_SIZE, in_loop, serving, tokenizer

KEYS = ServerConfig(api_key="secret-of-a-user-0123456789")


@in_loop
async def test_models() -> None:
    async with serving(ServerConfig(served_model_name=("org/small", "tiny"))) as service:
        listed = (await service.client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["org/small", "tiny"]
        assert (await service.client.get("/v1/models/org/small")).json() == listed[0]
        assert (await service.client.get("/v1/models/org%2Fsmall")).json() == listed[0]
        assert (await service.client.get("/v1/models/builtin")).status_code == 404
        assert (await service.chat(model="tiny")).json()["model"] == "tiny"
        assert (await service.chat()).json()["model"] == "org/small"


@in_loop
async def test_tokens_there_and_back() -> None:
    async with serving(vocab_size=VOCAB_SIZE) as service:
        post = service.client.post
        text = "Grüße from the mill"
        answer = (await post("/tokenize", json={"prompt": text, "return_token_strs": True})).json()
        assert answer["tokens"] == tokenizer().encode(text)
        assert answer["count"] == len(answer["token_strs"]) == len(answer["tokens"])
        assert (await post("/detokenize", json={"tokens": answer["tokens"]})).json() == {"prompt": text}
        messages = {"messages": [{"role": "user", "content": text}]}
        chat = (await post("/tokenize", json=messages)).json()["tokens"]
        assert chat == tokenizer().apply_chat_template(messages["messages"])
        counted = (await post("/v1/messages/count_tokens", json=messages | {"model": "builtin"})).json()
        assert counted == {"input_tokens": len(chat)}
        assert (await post("/detokenize", json={"tokens": [10**6]})).json()["error"]["code"] == "token_out_of_range"


@in_loop
async def test_health_load_version_metrics_document() -> None:
    async with serving() as service:
        get = service.client.get
        for path in ("/health", "/health/live", "/health/ready", "/version", "/load", "/openapi.json"):
            answer = await get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), path
        assert (await get("/openapi.json")).json()["openapi"].startswith("3.")
        await service.chat()
        metrics = (await get("/metrics")).text
        (line,) = (line for line in metrics.splitlines() if line.startswith("headrace_requests_received_total{"))
        assert "/v1/chat/completions" in line
        assert float(line.split()[-1]) == 1


@in_loop
async def test_the_load_is_in_every_answer() -> None:
    async with serving(engine_config=EngineConfig(max_num_seqs=1), step_s=0.01) as service:
        idle = (await service.client.get("/health/live")).headers["x-headrace-load"]
        assert idle == "running=0,waiting=0,tokens=0,kv=0.00"
        answers = [asyncio.create_task(service.chat(max_tokens=20)) for _ in range(2)]
        while service.app.line.num_running == 0:
            await asyncio.sleep(0.001)
        busy = (await service.client.get("/nowhere")).headers["x-headrace-load"]
        assert busy.startswith("running=1,waiting=1,tokens=")
        report = (await service.client.get("/load")).json()
        assert (report["num_running"], report["num_waiting"], report["num_queued"]) == (1, 1, 1)
        assert report["num_cache_tokens"] > 0
        await asyncio.gather(*answers)


@in_loop
async def test_request_ids() -> None:
    async with serving(tools=Tools(random_bits=lambda bits: 7)) as service:
        get = service.client.get
        assert (await get("/version")).headers["x-request-id"] == "req-000000000000000000000007"
        assert (await get("/version", headers={"x-request-id": "mine-1.2:3"})).headers["x-request-id"] == "mine-1.2:3"
        for bad in ("a b", "é".encode("latin-1"), "x" * 129, "", "-x"):
            answer = await get("/version", headers={"x-request-id": bad})
            assert answer.headers["x-request-id"] == "req-000000000000000000000007"


@in_loop
async def test_unknown_paths_and_methods() -> None:
    async with serving() as service:
        missing = await service.client.get("/v2/nothing")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
        wrong = await service.client.get("/v1/chat/completions")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert (await service.client.head("/health")).status_code == 200
        assert 'endpoint="unknown"' in (await service.client.get("/metrics")).text


@in_loop
async def test_roles() -> None:
    async with serving(KEYS) as service:
        get, key = service.client.get, {"authorization": f"Bearer {KEYS.api_key}"}
        for path, without, with_key in (
            ("/health", 200, 200),
            ("/version", 200, 200),
            ("/v1/models", 401, 200),
            ("/metrics", 401, 200),
            ("/admin/state", 401, 403),
        ):
            assert (await get(path)).status_code == without, path
            assert (await get(path, headers=key)).status_code == with_key, path


@in_loop
async def test_administration() -> None:
    async with serving() as service:
        state = (await service.client.get("/admin/state")).json()
        assert state["engine"]["running"] == []
        assert (await service.client.get("/admin/integrity")).json() == {"ok": True, "problems": []}
        answer = await service.client.post("/admin/drain", json={"deadline_s": 3})
        assert (answer.status_code, service.drains) == (202, [3.0])
        assert (await service.client.post("/admin/drain")).status_code == 202
        assert service.drains == [3.0, None]


@in_loop
async def test_a_server_that_drains_refuses_and_closes() -> None:
    async with serving(step_s=0.01) as service:
        running = asyncio.create_task(service.chat(max_tokens=30))
        while service.app.line.num_running == 0:
            await asyncio.sleep(0.001)
        service.app.readiness.is_draining = True
        refused = await service.chat()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_draining")
        assert refused.headers["connection"] == "close"
        assert "retry-after" in refused.headers
        assert (await service.client.get("/health/ready")).status_code == 503
        assert (await service.client.get("/health/live")).status_code == 200
        assert (await running).status_code == 200


@pytest.mark.parametrize(
    ("origin", "expected"), [("https://page.example", "https://page.example"), ("https://x.y", None)]
)
@in_loop
async def test_pages_of_other_origins(origin: str, expected: str | None) -> None:
    async with serving(ServerConfig(cors_origins=("https://page.example",))) as service:
        answer = await service.client.get("/version", headers={"origin": origin})
        assert answer.headers.get("access-control-allow-origin") == expected
        asked = {"origin": origin, "access-control-request-method": "POST"}
        preflight = await service.client.options("/v1/chat/completions", headers=asked)
        assert (preflight.status_code == 200) == (expected is not None)
        assert "x-request-id" in preflight.headers
