"""The runner for devices with graphs, against transformers' own tokens and against the plain runner."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from headrace import LLM, SamplingParams
from tests.device.capturable import Recorded
from tests.engine.reference import PROMPTS, greedy, own_tokens

SETTINGS: dict[str, Any] = {
    "block_size": 4,
    "max_num_batched_tokens": 32,
    "max_num_seqs": 6,
    "max_model_len": 64,
    "attn_implementation": "capturable",
    "surgery": False,
    "check_integrity": True,
}


@pytest.fixture(scope="module")
def llm(tiny_model: Any) -> Iterator[LLM]:
    with LLM(copy.deepcopy(tiny_model), **SETTINGS) as llm:
        while llm._client.call(lambda core: core.prepare()):
            pass
        yield llm
        llm.check_integrity()


@pytest.fixture(scope="module")
def plain(tiny_model: Any) -> Iterator[LLM]:
    with LLM(copy.deepcopy(tiny_model), **SETTINGS, use_cuda_graph=False, async_scheduling=False) as llm:
        yield llm


def _ids(outputs: Any) -> list[tuple[int, ...]]:
    return [output.outputs[0].token_ids for output in outputs]


def test_every_size_was_captured_before_a_request_came(llm: LLM, graphs: list[Recorded]) -> None:
    assert len(graphs) == 4
    assert llm.dump_state()["counters"]["num_steps"] == 0
    captured = llm._client.call(lambda core: sorted(size for size, _ in core.runner._graphs._graphs))
    assert captured == [1, 2, 4, 6]


def test_greedy_tokens_are_transformers_own(llm: LLM, tiny_model: Any, graphs: list[Recorded]) -> None:
    before = sum(graph.num_replays for graph in graphs)
    outputs = llm.generate(PROMPTS, [greedy(8 + i) for i in range(6)])
    assert _ids(outputs) == [own_tokens(tiny_model, prompt, 8 + i) for i, prompt in enumerate(PROMPTS)]
    assert sum(graph.num_replays for graph in graphs) > before + 5


def test_batches_that_are_padded_write_nothing_for_the_padding(llm: LLM, tiny_model: Any) -> None:
    for count in (3, 5):
        outputs = llm.generate(PROMPTS[:count], greedy(10))
        assert _ids(outputs) == [own_tokens(tiny_model, prompt, 10) for prompt in PROMPTS[:count]]


SAMPLINGS = [
    {"temperature": 0.8, "seed": 1},
    {"temperature": 1.0, "top_p": 0.9, "seed": 2},
    {"temperature": 1.0, "top_k": 5, "seed": 3},
    {"temperature": 0.0, "logit_bias": {7: 3.0}},
    {"temperature": 0.7, "min_p": 0.1, "seed": 5, "min_tokens": 6, "ignore_eos": False},
    {"temperature": 0.0, "repetition_penalty": 1.3},
    {"temperature": 0.0, "logprobs": 2},
    {"temperature": 0.9, "seed": 8, "frequency_penalty": 0.7},
    {"temperature": 0.0},
]


def test_every_setting_gives_the_tokens_of_the_plain_runner(llm: LLM, plain: LLM) -> None:
    rng = random.Random(0)
    cases = [(prompt, settings) for prompt in PROMPTS for settings in SAMPLINGS]
    rng.shuffle(cases)
    prompts = [prompt for prompt, _ in cases]
    params = [SamplingParams(**{"max_tokens": 4 + i % 9, "ignore_eos": True, **s}) for i, (_, s) in enumerate(cases)]
    assert _ids(llm.generate(prompts, params)) == _ids(plain.generate(prompts, params))


def test_guides_and_logprobs_wait_and_agree(llm: LLM, plain: LLM) -> None:
    params = [greedy(6, logprobs=2, prompt_logprobs=1), greedy(9), greedy(4, logprobs=0)]
    for ours, theirs in zip(llm.generate(PROMPTS[:3], params), plain.generate(PROMPTS[:3], params), strict=True):
        assert ours.outputs[0].token_ids == theirs.outputs[0].token_ids
        assert ours.outputs[0].logprobs == theirs.outputs[0].logprobs
        assert ours.prompt_logprobs == theirs.prompt_logprobs


def test_preemption_and_shared_prefixes_under_graphs(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.scheduler.admission.GROWTH_HORIZON_TOKENS", 0)
    tight = {**SETTINGS, "num_blocks": 17, "safety_margin": 0.0}
    prompts = [[*PROMPTS[4][:12], 5 + i] for i in range(6)]
    with LLM(copy.deepcopy(tiny_model), **tight) as llm:
        outputs = llm.generate(prompts, greedy(14))
        assert _ids(outputs) == [own_tokens(tiny_model, prompt, 14) for prompt in prompts]
        counters = llm.dump_state()["counters"]
        assert counters["num_preemptions"] > 0
        assert counters["num_cached_tokens"] > 0


def test_a_launch_that_fails_leaves_nothing_behind(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM(copy.deepcopy(tiny_model), **SETTINGS, use_cuda_graph=False) as llm:
        runner: Any = llm._client._core.runner
        write, calls = runner._buffers.write, [0]

        def sometimes(*args: Any) -> None:
            calls[0] += 1
            if calls[0] % 4 == 0:
                raise RuntimeError("CUDA out of memory")
            write(*args)

        monkeypatch.setattr(runner._buffers, "write", sometimes)
        outputs = llm.generate(PROMPTS, greedy(12))
        assert _ids(outputs) == [own_tokens(tiny_model, prompt, 12) for prompt in PROMPTS]
        assert calls[0] > 8
