"""`ContinuousBatchingManager` and `generate_batch`: transformers' interface, transformers' tokens."""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from transformers import GenerationConfig

from headrace import ContinuousBatchingManager, EngineConfig, RequestStatus, SamplingParams, generate_batch
from headrace.errors import EngineStopped, InvalidParameter, InvalidRequest
from tests.engine.reference import PROMPTS, greedy, own_tokens

CONFIG = EngineConfig(block_size=4, max_num_batched_tokens=32, max_num_seqs=8, check_integrity=True)
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=10, eos_token_id=-1)


@pytest.fixture
def manager(tiny_model: Any) -> Iterator[ContinuousBatchingManager]:
    with ContinuousBatchingManager(copy.deepcopy(tiny_model), GREEDY, CONFIG) as manager:
        yield manager


def test_generate_batch_equals_generate_and_gives_the_model_back(tiny_model):
    expected = [list(own_tokens(tiny_model, prompt, 10)) for prompt in PROMPTS]
    model = copy.deepcopy(tiny_model)
    results = generate_batch(model, PROMPTS, GREEDY, CONFIG)
    assert list(results) == [f"req_{i}" for i in range(len(PROMPTS))]
    assert [result.generated_tokens for result in results.values()] == expected
    assert [result.prompt_ids for result in results.values()] == PROMPTS
    assert all(result.is_finished() and result.error is None for result in results.values())
    assert {result.status for result in results.values()} == {RequestStatus.FINISHED}
    assert [list(own_tokens(model, prompt, 10)) for prompt in PROMPTS] == expected


def test_generate_batch_honours_the_models_own_end_of_sequence(tiny_model):
    """The end is a token that greedy generation comes to."""
    free = own_tokens(tiny_model, PROMPTS[0], 30)
    config = GenerationConfig(do_sample=False, max_new_tokens=30, eos_token_id=[free[5], 419])
    (result,) = generate_batch(copy.deepcopy(tiny_model), PROMPTS[:1], config, CONFIG).values()
    assert result.generated_tokens == list(free[: free.index(free[5]) + 1])


def test_inputs_that_cannot_be_served_fail_beside_the_others(tiny_model, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    inputs = [PROMPTS[0], [], [9999], None, [5] * 600, PROMPTS[1]]
    results = generate_batch(copy.deepcopy(tiny_model), inputs, GREEDY, CONFIG, progress_bar=True)
    statuses = [result.status.name for result in results.values()]
    assert statuses == ["FINISHED", "FAILED", "FAILED", "FAILED", "FAILED", "FINISHED"]
    assert "empty" in results["req_1"].error
    assert "9999 is out of range" in results["req_2"].error
    assert "600 tokens" in results["req_4"].error
    assert results["req_5"].generated_tokens == list(own_tokens(tiny_model, PROMPTS[1], 10))
    assert "6/6" in stream.getvalue()


def test_several_return_sequences_come_under_numbered_ids(tiny_model):
    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=6, num_return_sequences=3, eos_token_id=-1)
    results = generate_batch(copy.deepcopy(tiny_model), PROMPTS[:2], config, CONFIG)
    assert list(results) == [f"req_{i}#{j}" for i in range(2) for j in range(3)]
    assert len({tuple(result.generated_tokens) for result in results.values()}) == 6


def test_results_are_kept_for_their_readers(manager, tiny_model):
    names = manager.add_requests(PROMPTS[:3])
    assert len(set(names)) == 3
    for name in reversed(names):
        result = manager.get_result(name, timeout=30)
        assert result.request_id == name
        assert result.generated_tokens == list(own_tokens(tiny_model, PROMPTS[names.index(name)], 10))
    assert manager.get_result(names[0]) is None, "given once"
    assert manager.get_result() is None, "nothing is live"
    assert manager.get_result("never was") is None


def test_a_result_that_is_not_there_yet_is_none_after_the_timeout(manager):
    name = manager.add_request(PROMPTS[0], max_new_tokens=400)
    assert manager.get_result(name, timeout=0.0) is None
    assert manager.get_result(timeout=0.0) is None
    manager.cancel_request(name)
    assert manager.get_result(name, timeout=30).status is RequestStatus.FAILED


def test_a_streaming_request_gives_what_it_has_and_then_all(manager, tiny_model):
    name = manager.add_request(PROMPTS[0], streaming=True)
    other = manager.add_request(PROMPTS[1])
    parts = list(manager.request_id_iter(name))
    expected = list(own_tokens(tiny_model, PROMPTS[0], 10))
    assert [part.generated_tokens for part in parts] == [expected[: i + 1] for i in range(10)]
    assert [part.status.name for part in parts] == ["DECODING"] * 9 + ["FINISHED"]
    (whole,) = manager.request_id_iter(other)
    assert whole.is_finished()
    assert list(manager.request_id_iter(name)) == []


def test_iterating_a_manager_yields_every_result(manager):
    names = set(manager.add_requests(PROMPTS))
    assert {result.request_id for result in manager} == names


def test_own_settings_of_one_request(manager, tiny_model):
    free = own_tokens(tiny_model, PROMPTS[0], 10)
    short = manager.add_request(PROMPTS[0], request_id="short", max_new_tokens=3)
    ending = manager.add_request(PROMPTS[0], eos_token_id=free[4])
    sampled = manager.add_request(
        PROMPTS[0], sampling_params=SamplingParams(seed=3, max_tokens=5, logprobs=0, ignore_eos=True)
    )
    assert short == "short"
    assert manager.get_result(short).generated_tokens == list(free[:3])
    assert manager.get_result(ending).generated_tokens == list(free[: free.index(free[4]) + 1])
    result = manager.get_result(sampled)
    assert len(result.generated_tokens) == len(result.logprobs) == 5
    assert all(value <= 0 for value in result.logprobs)
    with pytest.raises(InvalidParameter, match="a manager has no tokenizer"):
        manager.add_request(PROMPTS[0], sampling_params=greedy(3, stop="x"))


def test_an_id_is_taken_until_its_result_is_fetched(manager):
    manager.add_request(PROMPTS[0], request_id="a")
    with pytest.raises(InvalidRequest, match="'a' is taken"):
        manager.add_request(PROMPTS[1], request_id="a")
    manager.add_request(PROMPTS[0], request_id="b#1")
    pair = greedy(3, n=2)
    with pytest.raises(InvalidRequest, match="'b#1' is taken"):
        manager.add_request(PROMPTS[1], request_id="b", sampling_params=pair)
    assert {result.request_id for result in manager} == {"a", "b#1"}, "a refused request leaves nothing behind"
    manager.add_request(PROMPTS[1], request_id="a")
    assert manager.get_result("a").status is RequestStatus.FINISHED


def test_cancelling_ends_all_sequences_of_a_request(manager):
    manager.add_request(PROMPTS[0], request_id="x", sampling_params=greedy(400, n=3))
    manager.add_request(PROMPTS[0], request_id="xy", max_new_tokens=3)
    manager.cancel_request("x")
    manager.cancel_request("nobody")
    results = {result.request_id: result.status.name for result in manager}
    assert results == {"x#0": "FAILED", "x#1": "FAILED", "x#2": "FAILED", "xy": "FINISHED"}
    manager.check_integrity()
    assert manager.dump_state()["cache"]["pools"][0]["used"] == 0


def test_the_life_of_a_manager(tiny_model):
    manager = ContinuousBatchingManager(copy.deepcopy(tiny_model), GREEDY, CONFIG)
    assert not manager.is_running()
    with pytest.raises(EngineStopped):
        manager.add_request(PROMPTS[0])
    manager.start()
    manager.start()
    assert manager.is_running()
    name = manager.add_request(PROMPTS[0], max_new_tokens=400)
    manager.stop(block=False)
    result = manager.get_result(name, timeout=30)
    assert (result.status, "stopped" in result.error) == (RequestStatus.FAILED, True)
    manager.stop(timeout=30)
    manager.stop()
    assert not manager.is_running()
    with pytest.raises(EngineStopped):
        manager.add_request(PROMPTS[0])
    with pytest.raises(EngineStopped):
        manager.start()


def test_an_engine_that_dies_fails_what_is_live(manager):
    name = manager.add_request(PROMPTS[0], max_new_tokens=400)
    manager._client._core.scheduler.update = lambda plan, result: 1 / 0
    result = manager.get_result(name, timeout=30)
    assert result.status is RequestStatus.FAILED
    assert "the engine died: ZeroDivisionError" in result.error


def test_max_length_bounds_prompt_and_output_together(tiny_model):
    config = GenerationConfig(do_sample=False, max_length=20, eos_token_id=-1)
    with ContinuousBatchingManager(copy.deepcopy(tiny_model), config, CONFIG) as manager:
        name = manager.add_request(PROMPTS[2])
        assert manager.get_result(name).generated_tokens == list(own_tokens(tiny_model, PROMPTS[2], 3))
        longer = manager.add_request(PROMPTS[2], max_new_tokens=9)
        assert manager.get_result(longer).generated_tokens == list(own_tokens(tiny_model, PROMPTS[2], 9))
        with pytest.raises(InvalidRequest, match="30 tokens; 19 leave room for an answer \\(max_length=20"):
            manager.add_request(PROMPTS[4])
