"""Published figures refer to these requests: they must never change, on no machine and in no version."""

from __future__ import annotations

import hashlib

import pytest

from headrace.bench.comparison import variant
from headrace.bench.workloads import MIN_VOCAB_SIZE, RECIPES, Workload, workload
from headrace.errors import ConfigError

FINGERPRINTS = {
    "offline256": (256, 142_827, 133_966, "108fb1350a2ddd1c"),
    "W1": (64, 8_013, 4_300, "3f545c906731e577"),
    "W2": (32, 7_168, 1_024, "77d89aafc87c90de"),
    "W1m": (16, 1_887, 999, "42e84fe674f614b1"),
    "W2m": (16, 3_584, 256, "baeed86df1233b4a"),
}


def fingerprint(made: Workload) -> str:
    pairs = [(request.prompt_token_ids, request.max_tokens) for request in made.requests]
    return hashlib.sha256(repr(pairs).encode()).hexdigest()[:16]


def test_every_workload_has_a_fingerprint() -> None:
    assert set(FINGERPRINTS) == set(RECIPES)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_published_requests_never_change(name: str) -> None:
    made = workload(name)
    sizes = len(made.requests), made.num_prompt_tokens, made.num_output_tokens
    assert (*sizes, fingerprint(made)) == FINGERPRINTS[name]


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_token_ids_fit_every_shape(name: str) -> None:
    assert max(max(request.prompt_token_ids) for request in workload(name).requests) < MIN_VOCAB_SIZE


def test_a_seed_gives_other_requests_and_the_same_seed_the_same() -> None:
    assert workload("W1", 7) == workload("W1", 7)
    assert fingerprint(workload("W1", 7)) != fingerprint(workload("W1"))


def test_shared_prefix_is_shared_and_the_rest_is_not() -> None:
    prompts = [request.prompt_token_ids for request in workload("W2").requests]
    assert len({prompt[:192] for prompt in prompts}) == 1
    assert len({prompt[192:] for prompt in prompts}) == 32


def test_small_workloads_are_the_beginning_of_the_large() -> None:
    assert workload("W1m").requests == workload("W1").requests[:16]


def test_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match="'W9'; there are offline256, W1, W2"):
        workload("W9")


def test_variants_share_lengths_and_prefixes_but_no_prompt() -> None:
    requests = workload("W2").requests
    assert variant(requests, 0) == list(requests)
    other = variant(requests, 1)
    assert [r.max_tokens for r in other] == [r.max_tokens for r in requests]
    assert len({r.prompt_token_ids[:192] for r in other}) == 1
    assert other[0].prompt_token_ids[0] != requests[0].prompt_token_ids[0]
    assert max(max(r.prompt_token_ids) for r in other) < MIN_VOCAB_SIZE
