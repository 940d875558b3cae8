"""What outlives the gateway's process."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from random import Random

from headrace.gateway.blocks import chained_hashes
from headrace.gateway.features import Features
from headrace.gateway.fleet import Fleet
from headrace.gateway.http.upstream import UpstreamPool
from headrace.gateway.memory import Memory, load, save
from headrace.gateway.policies import get_policy
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.replica import Endpoint
from headrace.gateway.route import ProxySettings, Router
from tests.gateway.scripted import Notes

ENDPOINTS = [Endpoint(f"r{i}", "10.0.0.1", 8000 + i) for i in range(3)]


def make_router(policy: str = "prefix") -> Router:
    index = PrefixIndex()
    ids = itertools.count()
    router = Router(
        Fleet(index), get_policy(policy, Random(3), index), index, ProxySettings(), Notes(), time.monotonic, time.time,
        lambda: f"id-{next(ids)}", lambda replica: UpstreamPool(replica.endpoint, None),
    )  # fmt: skip
    router.fleet.update(ENDPOINTS, 0.0)
    return router


class Session:
    """A conversation that grows by a turn with each request."""

    def __init__(self, number: int) -> None:
        self._random = Random(number)
        self._text = b""

    def next_request(self) -> Features:
        self._text += self._random.randbytes(2_000)
        return Features("m", len(self._text) // 4, chained_hashes(self._text), "", "1.2.3.4")


def hit_ratio(router: Router, sessions: list[Session]) -> float:
    """One turn of each: how much of the prompts was sent where it is held."""
    cached = total = 0
    for session in sessions:
        asked = session.next_request()
        chosen = router.choose(asked, (), "id", "first")
        assert chosen is not None
        replica, decision = chosen
        router.index.record(asked.block_hashes, replica.number)
        cached += decision.num_cached_tokens
        total += decision.num_tokens
    return cached / total


def test_a_gateway_that_is_started_again_keeps_its_hits(tmp_path: Path) -> None:
    sessions = [Session(number) for number in range(40)]
    before = make_router()
    for _ in range(8):
        hit_ratio(before, sessions)
    ratio = hit_ratio(before, sessions)
    assert ratio > 0.8
    Memory(tmp_path / "memory").keep(before.fleet, before.index)

    after = make_router()
    Memory(tmp_path / "memory").recall(after.fleet, after.index)
    assert hit_ratio(after, sessions) >= 0.9 * ratio

    # What it is worth: without it they would be spread anew.
    assert hit_ratio(make_router(), sessions) == 0.0


def test_only_the_same_replica_at_the_same_address_is_remembered(tmp_path: Path) -> None:
    before = make_router()
    for replica in before.fleet:
        before.index.record([replica.number * 10 + 1, 2**64 - 1], replica.number)
    save(tmp_path / "memory", before.fleet, before.index)
    after = make_router()
    after.fleet.update([ENDPOINTS[0], Endpoint("r1", "10.0.0.1", 9999), ENDPOINTS[2]], 0.0)
    Memory(tmp_path / "memory").recall(after.fleet, after.index)
    known = {replica.name: sorted(after.index.hashes(replica.number)) for replica in after.fleet}
    assert known == {"r0": [1, 2**64 - 1], "r1": [], "r2": [21, 2**64 - 1]}


def test_a_replica_that_comes_later_is_remembered_once(tmp_path: Path) -> None:
    before = make_router()
    before.index.record([5], 0)
    save(tmp_path / "memory", before.fleet, before.index)
    after = make_router()
    after.fleet.update([], 0.0)
    memory = Memory(tmp_path / "memory")
    memory.recall(after.fleet, after.index)
    after.fleet.update(ENDPOINTS, 0.0)
    memory.recall(after.fleet, after.index)
    (first,) = [replica for replica in after.fleet if replica.name == "r0"]
    assert list(after.index.hashes(first.number)) == [5]
    after.index.remove_replica(first.number)  # it went down, and forgot
    after.index.add_replica(first.number)
    memory.recall(after.fleet, after.index)
    assert list(after.index.hashes(first.number)) == []


def test_keeping_before_a_replica_came_back_does_not_forget_it(tmp_path: Path) -> None:
    before = make_router()
    before.index.record([5], 0)
    save(tmp_path / "memory", before.fleet, before.index)
    after = make_router()
    after.fleet.update([ENDPOINTS[1]], 0.0)
    memory = Memory(tmp_path / "memory")
    memory.recall(after.fleet, after.index)
    memory.keep(after.fleet, after.index)
    assert list(load(tmp_path / "memory")["r0 http://10.0.0.1:8000"]) == [5]


def test_a_file_that_is_broken_is_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    assert load(path) == {}
    router = make_router()
    router.index.record([1, 2, 3], 0)
    save(path, router.fleet, router.index)
    whole = path.read_bytes()
    assert list(load(path)["r0 http://10.0.0.1:8000"]) == [1, 2, 3]
    for broken in (whole[:-1], whole[:-8], whole[:20], b"", b"\x00\xff" * 50, b"[]\n", b'{"format": 9}\n', b"null\n"):
        path.write_bytes(broken)
        assert load(path) == {}


def test_a_place_that_cannot_be_written_disturbs_nothing(tmp_path: Path) -> None:
    router = make_router()
    Memory(tmp_path / "no" / "such" / "folder").keep(router.fleet, router.index)
    assert list(tmp_path.iterdir()) == []
