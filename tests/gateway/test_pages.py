"""What the gateway answers itself, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from headrace.config.gateway import GatewayConfig
from headrace.errors import Forbidden, Unauthorized
from headrace.gateway.assembly import Assembly, assemble
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.pages import Guard
from tests.gateway.scripted import Answer, ScriptedReplica, read_answer
from tests.gateway.test_prober import Health, until
from tests.gateway.test_proxy import run


def check_key(credentials: Mapping[str, str], is_admin: bool) -> None:
    key = credentials.get("authorization", "").removeprefix("Bearer ") or credentials.get("x-api-key", "")
    if key not in ("user", "admin"):
        raise Unauthorized("no key")
    if is_admin and key != "admin":
        raise Forbidden("not for you")


OPEN = Guard(lambda credentials, is_admin: None, is_open=True)
KEYS = Guard(check_key, is_open=False)


@dataclass
class Place:
    assembly: Assembly
    replicas: list[ScriptedReplica]
    healths: list[Health]

    async def ask(self, line: str, body: bytes = b"", **headers: str) -> Answer:
        """Send "METHOD /target"."""
        lines = [f"{line} HTTP/1.1", "host: test", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        reader, writer = await asyncio.open_connection(*self.assembly.gateway.addresses[0])
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        try:
            async with asyncio.timeout(10):
                return await read_answer(reader)
        finally:
            writer.close()

    @property
    def names(self) -> list[str]:
        return sorted(replica.name for replica in self.assembly.gateway.router.fleet)


@asynccontextmanager
async def place(guard: Guard = OPEN, count: int = 2) -> AsyncIterator[Place]:
    healths = [Health() for _ in range(count)]
    for health in healths:
        health.let_go.set()
    replicas = [ScriptedReplica(health) for health in healths]
    urls = tuple([f"http://127.0.0.1:{await replica.start()}" for replica in replicas])
    assembly = assemble(GatewayConfig(replicas=urls, probe_interval_s=0.02), guard, ClientLimits())
    assembly.hub.start()
    await assembly.gateway.listen(host="127.0.0.1", port=0)
    here = Place(assembly, replicas, healths)
    await until(lambda: len(here.names) == count and all(r.models for r in assembly.gateway.router.fleet))
    try:
        yield here
    finally:
        await assembly.stop()
        for replica in replicas:
            await replica.stop()


def test_health_and_models() -> None:
    async def test() -> None:
        async with place() as p:
            assert (await p.ask("GET /health/live")).status == 200
            assert (await p.ask("GET /health/ready")).json == {"status": "ready", "replicas": 2}
            data = (await p.ask("GET /v1/models")).json["data"]
            assert [model["id"] for model in data] == ["other", "tiny"]
            assert sorted(data[0]["replicas"]) == p.names
            assert (await p.ask("GET /version")).json["version"]
            for health in p.healths:
                health.status = 503
            await until(lambda: not any(r.is_up for r in p.assembly.gateway.router.fleet))
            ready = await p.ask("GET /health/ready")
            assert ready.status == 503
            assert f"{p.names[0]} down" in ready.json["reason"]
            assert (await p.ask("GET /health/other")).status == 404
            assert (await p.ask("HEAD /health/live")).body == b""

    run(test)


def test_a_gateway_that_drains_says_so() -> None:
    async def test() -> None:
        async with place() as p:
            p.assembly.gateway.is_draining = True
            assert (await p.ask("GET /health/ready")).status == 503
            assert (await p.ask("GET /health/live")).status == 200
            assert (await p.ask("POST /v1/completions", b"{}")).json["error"]["code"] == "server_draining"

    run(test)


def test_who_may_ask() -> None:
    async def test() -> None:
        async with place(KEYS) as p:
            for target in ("/health/live", "/health/ready", "/version"):
                assert (await p.ask(f"GET {target}")).status == 200
            for line in ("GET /v1/models", "GET /admin/fleet", "POST /v1/completions", "GET /tokenize"):
                assert (await p.ask(line, b"{}")).status == 401
                assert (await p.ask(line, b"{}", authorization="Bearer nobody")).status == 401
            assert (await p.ask("GET /v1/models", x_api_key="user")).status == 200
            assert (await p.ask("POST /v1/completions", b"{}", authorization="Bearer user")).status == 200
            assert (await p.ask("GET /admin/fleet", authorization="Bearer user")).status == 403
            assert (await p.ask("GET /admin/fleet", authorization="Bearer admin")).status == 200

    run(test)


@pytest.mark.parametrize(
    "target",
    ["/admin/state", "/%61dmin/state", "/admin%2Fstate", "/%61%64min/drain", "http://replica/admin/drain", "/admin"],
)
def test_what_administrates_a_replica_is_not_passed_on(target: str) -> None:
    async def test() -> None:
        async with place() as p:
            before = p.assembly.journal.counts
            assert (await p.ask(f"POST {target}", b"{}")).status == 404
            assert p.assembly.journal.counts == before
            assert not any("admin" in asked.target for replica in p.replicas for asked in replica.asked)

    run(test)


def test_an_absolute_target_is_the_same_request() -> None:
    async def test() -> None:
        async with place() as p:
            assert (await p.ask("POST http://gateway/v1/completions?a=1", b"{}")).status == 200
            assert [a.target for r in p.replicas for a in r.asked if a.method == "POST"] == ["/v1/completions?a=1"]

    run(test)


def test_a_browser_may_ask_what_it_may_ask() -> None:
    async def test() -> None:
        async with place(KEYS) as p:
            answer = await p.ask("OPTIONS /v1/completions", origin="https://a", access_control_request_method="POST")
            assert answer.status != 401
            assert any(asked.method == "OPTIONS" for replica in p.replicas for asked in replica.asked)
            assert (await p.ask("OPTIONS /v1/completions")).status == 401

    run(test)


def test_replicas_are_drained_added_and_removed() -> None:
    async def test() -> None:
        async with place() as p:
            first, second = p.names
            assert (await p.ask(f"POST /admin/replicas/{first}/drain")).json == {"draining": first}
            for _ in range(4):
                route = (await p.ask("POST /v1/completions", b"{}")).headers["x-headrace-route"]
                assert f"replica={second};" in route
            fleet = {r["name"]: r for r in (await p.ask("GET /admin/fleet")).json["replicas"]}
            assert fleet[first]["condition"] == "draining"
            assert fleet[second]["condition"] == "ready"
            await p.ask(f"POST /admin/replicas/{first}/undrain")
            fleet = {r["name"]: r for r in (await p.ask("GET /admin/fleet")).json["replicas"]}
            assert fleet[first]["condition"] == "ready"

            answer = await p.ask("POST /admin/replicas", b'{"url": "http://127.0.0.1:9", "name": "far away"}')
            assert answer.status == 400
            answer = await p.ask("POST /admin/replicas", b'{"url": "http://127.0.0.1:9", "name": "far"}')
            assert (answer.status, answer.json["added"]) == (201, "far")
            await until(lambda: "far" in p.names)
            assert (await p.ask("DELETE /admin/replicas/far")).json == {"removed": "far"}
            await until(lambda: "far" not in p.names)
            refused = await p.ask(f"DELETE /admin/replicas/{first}")
            assert refused.status == 400
            assert "drain it" in refused.json["error"]["message"]
            assert first in (await p.ask("DELETE /admin/replicas/nobody")).json["error"]["message"]

    run(test)


def test_a_replica_registers_and_withdraws() -> None:
    async def test() -> None:
        async with place(count=1) as p:
            body = b'{"url": "http://127.0.0.1:9", "name": "new", "models": ["m"], "metadata": {"zone": "a"}}'
            assert (await p.ask("POST /admin/register", body)).json == {"registered": "new", "lease_s": 30.0}
            await until(lambda: "new" in p.names)
            fleet = {r["name"]: r for r in (await p.ask("GET /admin/fleet")).json["replicas"]}
            assert 29 < fleet["new"]["lease_s"] <= 30
            assert fleet["new"]["metadata"] == {"zone": "a"}
            assert (await p.ask("DELETE /admin/register/new")).json == {"withdrawn": True}
            await until(lambda: "new" not in p.names)
            assert (await p.ask("DELETE /admin/register/new")).json == {"withdrawn": False}

    run(test)


@pytest.mark.parametrize(
    ("line", "body", "status"),
    [
        ("POST /admin/replicas", b"nonsense", 400),
        ("POST /admin/replicas", b"[]", 400),
        ("POST /admin/replicas", b"\xff", 400),
        ("POST /admin/register", b"{}", 400),
        ("GET /admin/replicas", b"", 405),
        ("GET /admin/nothing", b"", 404),
        ("POST /admin/replicas/nobody/drain", b"", 404),
        ("POST /admin/rolling_restart", b"", 400),
        ("POST /admin/scale", b'{"replicas": 2}', 400),
        ("POST /admin/scale", b'{"replicas": true}', 400),
        ("POST /admin/route", b"{}", 400),
        ("GET /admin/decisions?limit=x", b"", 400),
        ("DELETE /metrics", b"", 405),
        ("POST /v1/models", b"", 405),
    ],
)
def test_what_cannot_be_is_refused_in_openais_form(line: str, body: bytes, status: int) -> None:
    async def test() -> None:
        async with place(count=1) as p:
            answer = await p.ask(line, body)
            assert answer.status == status
            assert answer.json["error"]["message"]

    run(test)


def test_routes_are_explained() -> None:
    async def test() -> None:
        async with place() as p:
            body = b'{"model": "tiny", "messages": [{"role": "user", "content": "' + b"long " * 400 + b'"}]}'
            dry = (await p.ask("POST /admin/route?dry_run=1", body)).json
            assert dry["replica"] in p.names
            assert dry["num_cached_tokens"] == 0
            assert p.assembly.journal.counts["sent_first"] == 0
            answer = await p.ask("POST /v1/chat/completions", body)
            chosen = answer.headers["x-headrace-route"].partition("replica=")[2].partition(";")[0]
            again: dict[str, Any] = (await p.ask("POST /admin/route?dry_run=1", body)).json
            assert again["replica"] == chosen
            assert again["num_cached_tokens"] > 0.8 * again["num_tokens"] > 0
            decisions = (await p.ask("GET /admin/decisions?limit=5")).json["decisions"]
            assert [(d["replica"], d["kind"], d["model"]) for d in decisions] == [(chosen, "first", "tiny")]
            assert decisions[0]["request_id"] == answer.headers["x-request-id"]

    run(test)


def test_only_the_last_thousand_decisions_are_kept() -> None:
    async def test() -> None:
        async with place(count=1) as p:
            router = p.assembly.gateway.router
            from headrace.gateway.features import features

            chosen = router.choose(features(b"{}", "c"), (), "id", "first")
            assert chosen is not None
            for number in range(1_500):
                p.assembly.journal.decided(msgspec.structs.replace(chosen[1], request_id=str(number)))
            decisions = (await p.ask("GET /admin/decisions?limit=5000")).json["decisions"]
            assert [d["request_id"] for d in (decisions[0], decisions[-1])] == ["1499", "500"]

    run(test)


def test_metrics_are_prometheus_text() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    async def test() -> None:
        async with place() as p:
            await p.ask("POST /v1/completions", b'{"model": "tiny"}')
            await p.ask("POST /v1/completions", b'{"model": "unknown"}')
            p.healths[0].status = 503
            await until(lambda: not all(r.is_up for r in p.assembly.gateway.router.fleet))
            answer = await p.ask("GET /metrics")
            assert answer.headers["content-type"].startswith("text/plain")
            samples = {
                (s.name, *s.labels.values()): s.value
                for family in text_string_to_metric_families(answer.body.decode())
                for s in family.samples
            }
            assert samples["headrace_gateway_requests_total", "ok", "200"] == 1
            assert samples["headrace_gateway_requests_total", "error", "404"] == 1
            assert samples["headrace_gateway_sends_total", "first"] == 1
            assert sum(v for k, v in samples.items() if k[0] == "headrace_gateway_ejections_total") == 1
            assert samples["headrace_gateway_request_duration_seconds_count",] == 2
            conditions = [set(k[1:]) for k in samples if k[0] == "headrace_gateway_replica_condition"]
            assert sorted((c - set(p.names)).pop() for c in conditions) == ["down", "ready"]
            assert ("process_cpu_seconds_total",) in samples

    run(test)
