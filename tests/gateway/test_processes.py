"""Several processes of one gateway: what they tell each other, and the whole as a command."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config.gateway import GatewayConfig
from headrace.errors import ConfigError, InvalidRequest, ServerDraining
from headrace.gateway.assembly import Assembly, assemble
from headrace.gateway.fleet import Fleet
from headrace.gateway.gateway import OwnAnswer
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.http.messages import Request, fields_of
from headrace.gateway.journal import Journal
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.processes.link import Link
from headrace.gateway.processes.messages import (
    Message,
    ReplicaReport,
    Report,
    Sent,
    State,
    decode,
    encode,
    hashes_of,
    sent,
    summed,
)
from headrace.gateway.processes.shared_index import SharedIndex
from headrace.gateway.processes.worker import Worker, WorkerPages
from headrace.gateway.replica import Endpoint
from headrace.gateway.route import Decision
from headrace.gateway.tally import Tally
from headrace.protocol.json_call import call_json
from tests.gateway.test_prober import until
from tests.gateway.test_proxy import run
from tests.gateway.test_supervisor import OPEN
from tests.gateway.test_up import SIMULATED, Command, is_alive, running
from tests.gateway.test_up import until as seconds_until

COUNTS = st.integers(0, 50)
TALLIES = st.builds(
    Tally,
    st.dictionaries(st.sampled_from(["first", "retry"]), COUNTS),
    st.dictionaries(st.tuples(st.sampled_from(["r0", "r1"]), st.sampled_from(["ok", "failed"])), COUNTS),
    st.dictionaries(st.tuples(st.sampled_from(["ok", "error"]), st.sampled_from([200, 503])), COUNTS),
    st.tuples(COUNTS, COUNTS, COUNTS),
    st.tuples(COUNTS, COUNTS),
    st.just(([], 0.0)) | st.tuples(st.lists(COUNTS, min_size=3, max_size=3), st.integers(0, 9).map(float)),
    st.just(([], 0.0)) | st.tuples(st.lists(COUNTS, min_size=3, max_size=3), st.integers(0, 9).map(float)),
)
HERE = Endpoint("here", "127.0.0.1", 9, metadata={"zone": "a"})
THERE = Endpoint("there", "127.0.0.1", 10, models=("m",), weight=2.0)

# ---------------------------------------------------------------- what is told


@given(TALLIES, TALLIES, TALLIES)
def test_tallies_add_up_in_any_order(a: Tally, b: Tally, c: Tally) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Tally() == Tally() + a == a
    assert sum((a + b).attempts.values()) == sum(a.attempts.values()) + sum(b.attempts.values())


@given(TALLIES)
def test_messages_arrive_as_they_were_sent(tally: Tally) -> None:
    messages: list[Message] = [
        State(3, [HERE, THERE], ["there"]),
        Report(3, {"here": ReplicaReport(1, 200, "ready")}, tally),
        sent("here", [0, 1, 2**64 - 1]),
    ]
    for message in messages:
        assert decode(encode(message)) == message
    assert list(hashes_of(sent("here", [0, 1, 2**64 - 1]))) == [0, 1, 2**64 - 1]


def journal_of(*statuses: int) -> Journal:
    """One that has counted answers of these statuses, each after a retry."""
    index = PrefixIndex()
    journal = Journal(Fleet(index), index, lambda: 0.0)
    for status in statuses:
        for kind in ("first", "retry"):
            journal.decided(Decision("id", 0.0, kind, "m", "r0", "", 200, 128, 0, 0, ("r0",)))
            journal.attempt_ended("r0", "ok" if kind == "retry" else "failed")
        journal.finished("ok" if status < 400 else "error", status, 0.3, 0.00003, (200, 120, 7))
    return journal


def test_a_journal_of_a_sum_tells_what_one_that_counted_all_would() -> None:
    parent = journal_of()
    parent.take(sum((journal_of(*statuses).tally() for statuses in [(200, 200), (), (503,)]), Tally()))
    alone = journal_of(200, 200, 503)
    own = b"process_"
    assert [line for line in parent.render().splitlines() if own not in line] == [
        line for line in alone.render().splitlines() if own not in line
    ]
    assert parent.counts == alone.counts
    assert parent.counts["sent_retry"] == 3


def test_what_is_under_way_adds_up() -> None:
    one = {"a": ReplicaReport(1, 100, "ready"), "b": ReplicaReport(2, 0, "ready")}
    assert summed([one, {"a": ReplicaReport(4, 20, "ejected")}]) == {"a": (5, 120), "b": (2, 0)}


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True), max_size=30))
def test_two_indexes_know_the_same_and_what_is_known_is_not_told_again(prompts: list[list[int]]) -> None:
    index, other = SharedIndex(), SharedIndex()
    told: list[int] = []
    for one in (index, other):
        one.add_replica(0)

    def tell(replica: int, hashes: Any) -> None:
        told.extend(hashes)
        other.heard(array("Q", hashes), replica)

    index.tell = tell
    for prompt in prompts:
        chain = [hash(tuple(prompt[: i + 1])) % 2**59 << 5 for i in range(len(prompt))]  # as prompts' blocks are
        index.record(chain, 0)
        assert other.depths(chain) == index.depths(chain) == {0: len(chain)}
        index.record(chain, 0)
    assert len(told) == len(set(told))


def test_processes_have_a_number_that_can_be() -> None:
    with pytest.raises(ConfigError, match="processes=0"):
        GatewayConfig(processes=0)


# ---------------------------------------------------------------- the connection


class Ends:
    """Both ends of a link, and what came out of them."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.num_lost = 0
        self.left = Link(self.heard.append, self.answer, self.lost)
        self.right = Link(self.heard.append, self.answer, self.lost)

    async def answer(self, request: Request) -> OwnAnswer:
        if request.target == b"/never":
            await asyncio.Event().wait()
        if request.target == b"/wrong":
            raise InvalidRequest("that is wrong")
        return OwnAnswer(201, b"for " + request.client.encode() + request.body, b"text/plain", ((b"x-a", b"1"),))

    def lost(self) -> None:
        self.num_lost += 1


@asynccontextmanager
async def linked() -> AsyncIterator[Ends]:
    ends, (a, b) = Ends(), socket.socketpair()
    await ends.left.connect(a)
    await ends.right.connect(b)
    try:
        yield ends
    finally:
        ends.left.close()
        ends.right.close()
        await until(lambda: ends.num_lost == 2)


def asking(target: bytes, body: bytes = b"") -> Request:
    headers = [(b"authorization", b"Bearer k")]
    return Request(b"GET", target, headers, fields_of(headers), body, "10.0.0.1")


def test_both_ends_ask_and_answer_and_errors_are_answers() -> None:
    async def test() -> None:
        async with linked() as ends:
            big = b"x" * 3_000_000
            asked = [
                ends.left.ask(asking(b"/a", b"1")),
                ends.right.ask(asking(b"/b", big)),
                ends.left.ask(asking(b"/c")),
            ]
            answers = await asyncio.gather(*asked)
            assert answers[0] == OwnAnswer(201, b"for 10.0.0.11", b"text/plain", ((b"x-a", b"1"),))
            assert answers[1].body == b"for 10.0.0.1" + big
            wrong = await ends.left.ask(asking(b"/wrong"))
            assert (wrong.status, json.loads(wrong.body)["error"]["message"]) == (400, "that is wrong")

    run(test)


def test_an_end_that_is_gone_answers_nothing() -> None:
    async def test() -> None:
        async with linked() as ends:
            asked = asyncio.ensure_future(ends.left.ask(asking(b"/never")))
            await asyncio.sleep(0)
            ends.right.close()
            with pytest.raises(ServerDraining):
                await asked
            with pytest.raises(ServerDraining):
                await ends.left.ask(asking(b"/a"))
            ends.left.send(sent("r", [1]))  # told to nobody

    run(test)


def test_who_is_far_behind_is_spared_what_may_get_lost() -> None:
    async def test() -> None:
        ends, (a, b) = Ends(), socket.socketpair()
        await ends.left.connect(a)  # nobody reads the other end
        gossip, num_sent = sent("r", range(10_000)), 200
        for _ in range(num_sent):
            ends.left.send_if_room(gossip)
        ends.left.send(State(1, [], []))
        await ends.right.connect(b)
        await until(lambda: State(1, [], []) in ends.heard)
        assert 0 < sum(isinstance(message, Sent) for message in ends.heard) < num_sent
        ends.left.close()
        await until(lambda: ends.num_lost == 2)

    run(test)


# ---------------------------------------------------------------- a process and what its parent tells it


@asynccontextmanager
async def working() -> AsyncIterator[tuple[Assembly, Ends]]:
    """A process's gateway, and its parent's end of the link."""
    config = GatewayConfig(probe_interval_s=60.0)
    assembly = assemble(config, OPEN, ClientLimits(), page_kind=WorkerPages, is_worker=True)
    parent, (theirs, ours) = Ends(), socket.socketpair()
    worker = Worker(assembly, theirs)
    await parent.left.connect(ours)
    starting = asyncio.create_task(worker.start())
    await asyncio.sleep(0.02)
    assert not starting.done()
    parent.left.send(State(7, [HERE, THERE], ["there"]))
    assert await starting is None
    try:
        yield assembly, parent
    finally:
        await worker.stop(0.0)
        await until(lambda: parent.num_lost)
        assert isinstance(parent.heard[-1], Report)
        assert await worker.run() == 1
        await assembly.stop()


def test_a_process_does_as_its_parent_says_and_tells_what_it_sent() -> None:
    async def test() -> None:
        async with working() as (assembly, parent):
            router = assembly.gateway.router
            assert [(r.endpoint, r.draining) for r in router.fleet] == [(HERE, False), (THERE, True)]
            await until(lambda: parent.heard)
            report = parent.heard[0]
            assert isinstance(report, Report)
            assert report.number == 7
            assert {name: seen.condition for name, seen in report.replicas.items()} == {
                "here": "ready", "there": "draining",
            }  # fmt: skip
            parent.left.send(State(8, [THERE], []))
            await until(lambda: parent.heard[-1].number == 8)  # type: ignore[union-attr]
            (there,) = router.fleet
            assert not there.draining
            parent.left.send(sent("there", [5, 6]))
            parent.left.send(sent("nobody", [5, 6]))
            await until(lambda: router.index.depths([5, 6, 7]) == {there.number: 2})
            router.index.record([5, 6, 7], there.number)
            await until(lambda: sent("there", [7]) in parent.heard)

    run(test)


def test_administration_and_metrics_are_the_parents_and_health_is_not() -> None:
    async def test() -> None:
        async with working() as (assembly, _):
            for target in (b"/admin/fleet", b"/metrics", b"/%61dmin/fleet"):
                assert (await assembly.pages.answer(asking(target))).body == b"for 10.0.0.1"
            assert (await assembly.pages.answer(asking(b"/health/live"))).body == b'{"status":"live"}'

    run(test)


# ---------------------------------------------------------------- the command

NUM_CONNECTIONS = 24


def pids(gateway: Command) -> dict[str, int]:
    """Of its processes, as it said when they became ready; a later one counts."""
    found = (re.search(r"(process-\d+) is ready at \S+ process (\d+)", line) for line in list(gateway.lines))
    return {m.group(1): int(m.group(2)) for m in found if m}


def connections(url: str) -> list[HTTPConnection]:
    """Enough that no process is without one, but once in 10^7 times."""
    return [HTTPConnection(url.removeprefix("http://"), timeout=60) for _ in range(NUM_CONNECTIONS)]


def ask(connection: HTTPConnection, prompt: str = "one two", max_tokens: int = 3) -> tuple[int, str]:
    """Status and the replica that answered; 0 when the connection broke."""
    body = json.dumps({"model": "builtin", "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True})
    try:
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, ValueError):
        return 0, ""
    route = re.match(r"replica=([^;]+);", answer.headers["x-headrace-route"] or "")
    return answer.status, route.group(1) if route else ""


def total(url: str, name: str) -> float:
    """The sum of a metric over its labels."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_processes_share_the_work_and_nobody_but_its_own_clients_sees_one_die() -> None:
    with running("up", "builtin", "--replicas", "2", "--processes", "2", "--port", "0", *SIMULATED) as up:
        url, clients = up.url, connections(up.url)
        assert [ask(client)[0] for client in clients] == [200] * NUM_CONNECTIONS
        assert total(url, "headrace_gateway_requests_total") == NUM_CONNECTIONS
        before = pids(up)
        assert len(before) == 2
        time.sleep(0.6)  # what a process counts it tells every quarter of a second
        os.kill(before["process-0"], signal.SIGKILL)
        seconds_until(lambda: not is_alive(before["process-0"]))
        statuses = [ask(client)[0] for client in clients]
        assert {0, 200} == set(statuses), "each process had some of the connections, and one lost its own"
        new = connections(url)
        assert [ask(client)[0] for client in new] == [200] * NUM_CONNECTIONS
        seconds_until(lambda: pids(up) != before)
        assert pids(up)["process-1"] == before["process-1"]
        num_answered = 2 * NUM_CONNECTIONS + statuses.count(200)
        assert total(url, "headrace_gateway_requests_total") == num_answered, "what the dead one counted is kept"
        again = connections(url)
        assert [ask(client)[0] for client in again] == [200] * NUM_CONNECTIONS
        everybody = pids(up).values()
        os.kill(pids(up)["process-1"], signal.SIGKILL)  # so the one that came back takes requests too
        seconds_until(lambda: not is_alive(before["process-1"]))
        assert {0, 200} == {ask(client)[0] for client in again}
        assert up.end() == 0
        assert not any(map(is_alive, everybody))
        for client in itertools.chain(clients, new, again):
            client.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_what_an_administrator_says_to_one_process_holds_for_all() -> None:
    def answered() -> set[str]:
        clients = connections(up.url)
        statuses, names = zip(*map(ask, clients), strict=True)
        assert set(statuses) == {200}
        for client in clients:
            client.close()
        return set(names)

    def post(path: str, body: Any = None, method: str = "POST") -> Any:
        return call_json(method, f"{up.url}{path}", {} if body is None else body, None, 60.0)

    with (
        running("serve", "builtin", "--port", "0", *SIMULATED) as further,
        running("up", "builtin", "--replicas", "2", "--processes", "2", "--port", "0", *SIMULATED) as up,
    ):
        assert answered() == {"replica-0", "replica-1"}
        assert post("/admin/replicas/replica-0/drain").status == 200
        assert answered() == {"replica-1"}
        assert up.fleet()["replica-0"]["processes"] == {"process-0": "draining", "process-1": "draining"}
        assert post("/admin/register", {"url": further.url, "name": "further"}).status == 200
        seconds_until(lambda: list(up.fleet().get("further", {}).get("processes", {}).values()) == ["ready"] * 2)
        assert post("/admin/replicas/replica-1/drain").status == 200
        assert answered() == {"further"}
        assert post("/admin/replicas/replica-1/undrain").status == 200
        assert call_json("DELETE", f"{up.url}/admin/register/further").status == 200
        seconds_until(lambda: "further" not in up.fleet())
        assert answered() == {"replica-1"}
        assert post("/admin/replicas/replica-0/undrain").status == 200
        decisions = call_json("GET", f"{up.url}/admin/decisions?limit=1000").body["decisions"]
        assert len(decisions) == 4 * NUM_CONNECTIONS
        assert decisions == sorted(decisions, key=lambda decision: -decision["at_s"])
        assert len(call_json("GET", f"{up.url}/admin/decisions?limit=7").body["decisions"]) == 7
        assert call_json("GET", f"{up.url}/admin/decisions?limit=x").status == 400
        first = {name: replica["metadata"]["pid"] for name, replica in up.fleet().items()}
        assert post("/admin/rolling_restart").body == {"restarted": ["replica-0", "replica-1"]}
        second = {name: replica["metadata"]["pid"] for name, replica in up.fleet().items()}
        assert first.keys() == second.keys()
        assert not first.items() & second.items()
        assert answered() == {"replica-0", "replica-1"}
        assert up.end() == 0


def hit_ratio(*flags: str) -> float:
    """Share of the prompts' tokens that the replicas had in their caches; each turn comes on another connection."""
    with running("up", "builtin", "--replicas", "3", "--port", "0", *SIMULATED, *flags) as up:
        url = up.url
        talks = [
            f"This is conversation number {i}, and it begins like this. " * 10 for i in range(11)
        ]  # in turn, each comes to another replica
        for turn in range(6):
            for i, client in enumerate(connections(url)[:11]):
                assert ask(client, talks[i])[0] == 200
                client.close()
                talks[i] += f"And then, in turn {turn}, something else was said about {i}, which is new. " * 3
        held = total(url, 'headrace_gateway_tokens_total{kind="cached"}')
        ratio = held / total(url, 'headrace_gateway_tokens_total{kind="prompt"}')
        assert up.end() == 0
        return ratio


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_process_knows_where_a_prefix_is() -> None:
    alone, together = hit_ratio(), hit_ratio("--processes", "3")
    apart = hit_ratio("--policy", "round_robin")
    assert alone > apart + 0.1, "the load tells policies apart"
    assert together > alone - 0.05


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_processes_on_a_unix_socket_and_a_port_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with running("gateway", "--uds", str(path), "--processes", "2") as gateway:
        seconds_until(lambda: any(line.startswith("headrace: gateway at ") for line in gateway.lines))
        for _try in range(8):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(path))
                client.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
        assert gateway.end() == 0
    with running("gateway", "--port", "0", "--processes", "2") as gateway:
        port = gateway.url.rpartition(":")[2]
        with running("gateway", "--port", port, "--processes", "2") as second:
            assert second.process.wait(60) == 4
        assert gateway.end() == 0
