"""Every policy: what all promise, and what each one is for."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigError
from headrace.gateway.policies import Policy, get_policy, policy_names
from headrace.gateway.prefix_index import PrefixIndex
from tests.gateway.candidates import FakeReplica, fleet, request


def make(name: str, index: PrefixIndex | None = None) -> Policy:
    return get_policy(name, Random(1), PrefixIndex() if index is None else index)


@given(
    st.sampled_from(policy_names()),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9000), st.floats(0.05, 4)), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_every_policy_ranks_every_replica_once(
    name: str, states: list[tuple[int, int, float]], num_requests: int
) -> None:
    index = PrefixIndex()
    replicas = [FakeReplica(f"r{i}", i, *state) for i, state in enumerate(states)]
    for replica in replicas:
        index.add_replica(replica.number)
    index.record((32, 64, 96), 0)
    policy = make(name, index)
    for i in range(num_requests):
        ranked = policy.pick(request((32, 64, 96, 128), session=str(i)), replicas, 0.0).ranked
        assert sorted(replica.name for replica in ranked) == sorted(replica.name for replica in replicas)


@pytest.mark.parametrize("name", ["round_robin", "least_connections", "least_tokens", "weighted_round_robin", "prefix"])
def test_equal_replicas_take_turns(name: str) -> None:
    policy, replicas = make(name), fleet(5)
    counts = Counter(policy.pick(request(), replicas, 0.0).ranked[0].name for _ in range(100))
    assert set(counts.values()) == {20}


@pytest.mark.parametrize("name", ["random", "power_of_two", "consistent_hash", "ip_hash"])
def test_random_choices_and_hashes_spread(name: str) -> None:
    policy, replicas = make(name), fleet(4)
    counts = Counter(
        policy.pick(request(session=f"s{i}", client=f"c{i}"), replicas, 0.0).ranked[0].name for i in range(2000)
    )
    assert all(400 < counts[replica.name] < 600 for replica in replicas)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_weighted_turns_are_exact_and_smooth(weights: list[int]) -> None:
    policy = make("weighted_round_robin")
    replicas = [FakeReplica(f"r{i}", i, weight=float(weight)) for i, weight in enumerate(weights)]
    order = [policy.pick(request(), replicas, 0.0).ranked[0].name for _ in range(sum(weights))]
    assert Counter(order) == {f"r{i}": weight for i, weight in enumerate(weights)}
    # smooth: at every point each has had its share to within one turn per replica
    for place in range(1, len(order) + 1):
        for i, weight in enumerate(weights):
            assert abs(order[:place].count(f"r{i}") - place * weight / sum(weights)) < len(weights)


@pytest.mark.parametrize("name", ["random", "consistent_hash"])
def test_weights_are_proportions(name: str) -> None:
    policy = make(name)
    replicas = [FakeReplica("small", 0, weight=1.0), FakeReplica("big", 1, weight=3.0)]
    counts = Counter(policy.pick(request(session=f"s{i}"), replicas, 0.0).ranked[0].name for i in range(4000))
    assert counts["big"] / counts["small"] == pytest.approx(3.0, rel=0.15)


@given(st.integers(2, 9), st.integers(0, 8), st.sampled_from(["consistent_hash", "ip_hash"]))
def test_only_the_keys_of_a_lost_replica_move(count: int, lost: int, name: str) -> None:
    policy, replicas = make(name), fleet(count)
    left = [replica for replica in replicas if replica.number != lost % count]
    for i in range(60):
        asked = request(session=f"s{i}", client=f"c{i}")
        before = policy.pick(asked, replicas, 0.0).ranked[0]
        after = policy.pick(asked, left, 0.0).ranked[0]
        assert after is before or before.number == lost % count


def test_a_hot_key_is_bounded() -> None:
    policy, replicas = make("consistent_hash"), fleet(4)
    for _ in range(400):
        chosen = policy.pick(request(session="hot"), replicas, 0.0).ranked[0]
        replicas[chosen.number].num_in_flight += 1
    assert max(replica.num_in_flight for replica in replicas) <= 1.25 * 400 / 4 + 1
    assert min(replica.num_in_flight for replica in replicas) > 0


@pytest.mark.parametrize("name", ["least_connections", "least_tokens", "power_of_two", "prefix"])
def test_nobody_is_drowned_or_starved(name: str) -> None:
    """A replica that is slow gets less, and one that is fast more, but everybody something."""
    policy, replicas, random = make(name), fleet(4), Random(3)
    speed = [1, 2, 4, 8]
    done = Counter[str]()
    for _ in range(4000):
        chosen = replicas[policy.pick(request(), replicas, 0.0).ranked[0].number]
        chosen.num_in_flight += 1
        chosen.tokens_in_flight += 100
        done[chosen.name] += 1
        for replica in replicas:
            if replica.num_in_flight and random.random() < speed[replica.number] / 15:
                replica.num_in_flight -= 1
                replica.tokens_in_flight -= 100
    assert done["r0"] > 100
    assert done["r3"] > done["r0"]
    assert max(replica.num_in_flight for replica in replicas) < 200


# ---------------------------------------------------------------- prefix


def with_index(count: int) -> tuple[Policy, PrefixIndex, list[FakeReplica]]:
    index, replicas = PrefixIndex(), fleet(count)
    for replica in replicas:
        index.add_replica(replica.number)
    return make("prefix", index), index, replicas


HASHES = tuple(block << 5 for block in range(100, 120))
"""The lowest bits say how long a block is: the shortest."""


def test_the_holder_takes_the_request() -> None:
    policy, index, replicas = with_index(4)
    index.record(HASHES, 2)
    choice = policy.pick(request(HASHES), replicas, 0.0)
    assert choice.ranked[0].name == "r2"
    assert choice.reason == "20 of 20 blocks held"


def test_a_holder_is_passed_over_when_its_queue_costs_more_than_the_prefill() -> None:
    policy, index, replicas = with_index(4)
    index.record(HASHES, 2)
    saved = 20 * 64
    replicas[2].tokens_in_flight = saved
    assert policy.pick(request(HASHES), replicas, 0.0).ranked[0].name == "r2"
    replicas[2].tokens_in_flight = saved + 1
    assert policy.pick(request(HASHES), replicas, 0.0).ranked[0].name != "r2"
    for replica in replicas:
        replica.tokens_in_flight += 500  # all have more to do: the difference is what counts
    replicas[2].tokens_in_flight = saved + 500
    assert policy.pick(request(HASHES), replicas, 0.0).ranked[0].name == "r2"


def test_of_several_holders_the_least_loaded() -> None:
    policy, index, replicas = with_index(3)
    for number in range(3):
        index.record(HASHES, number)
        replicas[number].tokens_in_flight = 300 - 100 * number
    assert [replica.name for replica in policy.pick(request(HASHES), replicas, 0.0).ranked] == ["r2", "r1", "r0"]


def test_a_part_of_the_prefix_counts_as_what_it_saves() -> None:
    policy, index, replicas = with_index(2)
    index.record(HASHES[:10], 0)  # half: not a holder
    replicas[0].tokens_in_flight = 9 * 64
    assert policy.pick(request(HASHES), replicas, 0.0).ranked[0].name == "r0"
    replicas[0].tokens_in_flight = 11 * 64
    assert policy.pick(request(HASHES), replicas, 0.0).ranked[0].name == "r1"


def test_sessions_stay_where_they_are_under_even_load() -> None:
    policy, index, replicas = with_index(3)
    random = Random(0)
    homes: dict[int, set[str]] = {session: set() for session in range(24)}
    for turn in range(1, 6):
        for session in random.sample(range(24), 24):
            hashes = tuple(hash((session, block)) % 2**58 << 5 for block in range(turn * 8))
            chosen = policy.pick(request(hashes), replicas, 0.0).ranked[0]
            index.record(hashes, chosen.number)
            homes[session].add(chosen.name)
    assert all(len(names) == 1 for names in homes.values())
    assert Counter(next(iter(names)) for names in homes.values()) == {"r0": 8, "r1": 8, "r2": 8}


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'fastest' is not one of consistent_hash, ip_hash, .*prefix"):
        make("fastest")
