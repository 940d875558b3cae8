"""Nothing kills it: with the real model, each way to fail takes down its own request and nothing else."""

from __future__ import annotations

import copy
import gc
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import LLM, SamplingParams
from headrace.errors import (
    EmptyPrompt,
    EngineDead,
    EngineStopped,
    InvalidRequest,
    NonFiniteLogits,
    OutOfMemory,
    PromptTooLong,
    StepFailed,
    TokenOutOfRange,
)
from tests.engine.reference import PROMPTS, greedy, own_tokens

SICK = 401
"""The token whose embedding is NaN."""

SETTINGS: dict[str, Any] = {
    "block_size": 4,
    "max_num_batched_tokens": 16,
    "max_num_seqs": 6,
    "max_model_len": 64,
    "num_blocks": 64,
    "check_integrity": True,
}


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    """A model of which one token id makes NaN, and that never generates it."""
    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        model.model.embed_tokens.weight[SICK] = torch.nan
        model.lm_head.weight[SICK] = 0
    return model


@pytest.fixture(scope="module")
def expected(model: Any) -> list[tuple[int, ...]]:
    """Undisturbed tokens of PROMPTS."""
    return [own_tokens(model, prompt, 12) for prompt in PROMPTS]


@pytest.fixture
def wired(model: Any) -> Any:
    """The model that the engine runs, for hooks."""
    return copy.deepcopy(model)


@pytest.fixture
def llm(wired: Any, expected: Any) -> Iterator[LLM]:
    with LLM(wired, **SETTINGS) as llm:
        yield llm
        if llm.is_running:
            llm.check_integrity()
            assert all(pool["used"] == 0 for pool in llm.dump_state()["cache"]["pools"])


def _ids(outputs: Any) -> list[tuple[int, ...]]:
    return [output.outputs[0].token_ids for output in outputs]


# -------------------------------------------------------------------- bad requests

BAD_PROMPTS = [
    ([], EmptyPrompt),
    ([5] * 64, PromptTooLong),
    ([5] * 100_000, PromptTooLong),
    ([5, 420], TokenOutOfRange),
    ([5, -1], TokenOutOfRange),
    ([2**70], TokenOutOfRange),
    ([5, "a"], InvalidRequest),
    ([5, 1.5], InvalidRequest),
    ([True, False], InvalidRequest),
    ([[5, 6]], InvalidRequest),
    (b"bytes", InvalidRequest),
    (None, InvalidRequest),
    ({5: 6}, InvalidRequest),
    ("no tokenizer here", InvalidRequest),
]


def test_bad_prompts_are_answered_with_their_error_beside_good_ones(llm, expected):
    prompts = [*(prompt for prompt, _ in BAD_PROMPTS), *PROMPTS]
    outputs = llm.generate(prompts, greedy(12))
    for output, (prompt, kind) in zip(outputs, BAD_PROMPTS, strict=False):
        assert isinstance(output.error, kind), (prompt, output.error)
        assert output.outputs == ()
    assert _ids(outputs[len(BAD_PROMPTS) :]) == expected


def test_errors_say_the_numbers(llm):
    outputs = llm.generate([[5] * 70, [5, 420]], greedy(1))
    assert "70 tokens; 63 leave room for an answer (max_model_len=64)" in str(outputs[0].error)
    assert "420 is out of range: the model has ids 0 to 419" in str(outputs[1].error)


def test_the_longest_prompt_that_is_accepted_gets_its_one_token(llm, model):
    prompt = [3 + i for i in range(63)]
    (output,) = llm.generate([prompt], greedy(50))
    assert output.outputs[0].token_ids == own_tokens(model, prompt, 1)
    assert output.outputs[0].finish_reason == "length"


ABSURD: list[dict[str, Any]] = [
    {"temperature": 1e-300},
    {"temperature": 1e300},
    {"temperature": 0.7, "top_k": 10**12},
    {"temperature": 0.7, "top_p": 1e-300},
    {"temperature": 0.7, "min_p": 1.0},
    {"repetition_penalty": 1e300},
    {"repetition_penalty": 1e-300},
    {"logit_bias": {7: 1e300}},
    {"logit_bias": dict.fromkeys(range(420), -1e300)},
    {"max_tokens": 10**15},
    {"max_tokens": None, "min_tokens": 10**15},
    {"stop_token_ids": list(range(420)), "min_tokens": 3},
    {"logprobs": 100, "prompt_logprobs": 100},
    {"n": 50},
    {"seed": -(2**63), "temperature": 1.0},
]


@pytest.mark.parametrize("params", ABSURD, ids=lambda params: ", ".join(params))
def test_absurd_parameters_disturb_nobody(llm, expected, params):
    outputs = llm.generate([*PROMPTS, PROMPTS[0]], [*[greedy(12)] * 6, greedy(**{"max_tokens": 8, **params})])
    assert _ids(outputs[:6]) == expected
    strange = outputs[6]
    assert all(completion.finish_reason in ("length", "stop", "error") for completion in strange.outputs)
    assert (strange.error is None) == all(c.finish_reason != "error" for c in strange.outputs)


@pytest.mark.parametrize("params", [{"stop_token_ids": [420]}, {"logit_bias": {10**6: 1.0}}])
def test_parameters_that_name_tokens_the_model_does_not_have_are_refused(llm, params):
    with pytest.raises(InvalidRequest, match=next(iter(params))):
        llm.submit([5], SamplingParams(**params))


# -------------------------------------------------------------------- NaN


@pytest.mark.parametrize("place", [0, 3, 15, 16, 29])
def test_nan_in_one_row_fails_that_row(llm, expected, place):
    """In the first chunk of its prompt, at the edges of chunks, or in the last."""
    sick = [3 + i for i in range(30)]
    sick[place] = SICK
    outputs = llm.generate([*PROMPTS[:3], sick, *PROMPTS[3:]], greedy(12))
    failed = outputs.pop(3)
    assert isinstance(failed.error, NonFiniteLogits)
    assert _ids(outputs) == expected


def test_nan_in_the_cache_does_not_reach_who_gets_the_blocks_next(llm, expected):
    for _ in range(3):
        sick = [llm.submit([5, 6, SICK, *range(10, 10 + i)], greedy(5)) for i in range(0, 40, 3)]
        assert all(isinstance(handle.result(30).error, NonFiniteLogits) for handle in sick)
        assert _ids(llm.generate(PROMPTS, greedy(12))) == expected


def test_nan_in_an_unfinished_prompt_is_seen_before_its_blocks_are_shared(llm, expected):
    """Else a cancelled prompt would leave NaN behind, in the prefix tree or in blank blocks."""
    sick = [SICK, *range(10, 60)]
    steps = llm.dump_state()["counters"]["num_steps"]
    handle = llm.submit(sick, greedy(5))
    assert isinstance(handle.result(30).error, NonFiniteLogits)
    assert llm.dump_state()["counters"]["num_steps"] - steps == 1
    assert llm.dump_state()["cache"]["pools"][0]["cached"] == 0
    assert _ids(llm.generate(PROMPTS, greedy(12))) == expected


def test_one_bad_sequence_fails_and_prompt_logprobs_see_nan_too(llm, expected):
    (output,) = llm.generate([[5, SICK, 6]], greedy(5, prompt_logprobs=1, n=3))
    assert isinstance(output.error, NonFiniteLogits)
    assert [completion.finish_reason for completion in output.outputs] == ["error"] * 3


# -------------------------------------------------------------------- steps that raise


def _tokens(args: Any, kwargs: Any) -> torch.Tensor:
    return kwargs.get("input_ids", args[0] if args else None)


def _hook(module: Any, function: Callable[[Any], None]) -> Any:
    """Call `function` with the step's token ids, or hidden states, before the module runs."""
    return module.register_forward_pre_hook(lambda m, args, kwargs: function(_tokens(args, kwargs)), with_kwargs=True)


def _raise(words: str) -> None:
    raise RuntimeError(words)


PARTS = {
    "model": lambda model: model,
    "layer": lambda model: model.model.layers[1],  # on the CPU kernels its parts are not called one by one
    "logits": lambda model: model.lm_head,
}


@pytest.mark.parametrize("part", PARTS)
def test_a_step_that_always_raises_fails_every_request_and_the_engine_lives(llm, wired, expected, part):
    hook = _hook(PARTS[part](wired), lambda _: _raise("always"))
    outputs = llm.generate(PROMPTS, greedy(12))
    assert all(isinstance(output.error, StepFailed) for output in outputs)
    assert "always" in str(outputs[0].error)
    hook.remove()
    assert _ids(llm.generate(PROMPTS, greedy(12))) == expected


@pytest.mark.parametrize("when", [0, 3, 7])
def test_a_step_that_raises_once_fails_nobody(llm, wired, expected, when):
    calls: list[int] = []

    def once(_: Any) -> None:
        calls.append(1)
        if len(calls) == when + 1:
            _raise("once")

    _hook(wired.lm_head, once)
    outputs = llm.generate([PROMPTS[0], PROMPTS[1], PROMPTS[3]], greedy(12))
    assert _ids(outputs) == [expected[0], expected[1], expected[3]]


def test_a_request_that_makes_steps_raise_fails_alone(llm, wired, expected):
    _hook(wired, lambda ids: _raise("token 77") if (ids == 77).any() else None)
    guilty = [[5, 77, 9], [77], [*range(10, 40), 77, 3]]
    prompts = [*guilty[:1], *PROMPTS[:3], *guilty[1:], *PROMPTS[3:]]
    outputs = llm.generate(prompts, greedy(12))
    for output, prompt in zip(outputs, prompts, strict=True):
        if prompt in guilty:
            assert isinstance(output.error, StepFailed)
            assert "token 77" in str(output.error)
        else:
            assert output.outputs[0].token_ids == expected[PROMPTS.index(prompt)]


def test_a_step_that_does_not_fit_the_memory_is_run_in_halves(llm, wired, expected):
    def out_of_memory(ids: torch.Tensor) -> None:
        if ids.numel() > 9:
            _raise("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: not enough memory")

    hook = _hook(wired, out_of_memory)
    short = [i for i, prompt in enumerate(PROMPTS) if len(prompt) <= 9]
    outputs = llm.generate([PROMPTS[i] for i in short], greedy(12))
    assert _ids(outputs) == [expected[i] for i in short]
    assert _ids(llm.generate([PROMPTS[4]], greedy(12))) == [expected[4]], "a prompt that is too long is cut"
    hook.remove()
    hook = _hook(wired, lambda ids: _raise("CUDA out of memory") if ids.numel() >= 1 else None)
    (failed,) = llm.generate([PROMPTS[4]], greedy(12))
    assert isinstance(failed.error, OutOfMemory)
    hook.remove()
    assert _ids(llm.generate(PROMPTS, greedy(12))) == expected


def test_an_engine_that_dies_gives_every_output_its_error(llm):
    llm._client._core.scheduler.update = lambda plan, result: 1 / 0
    outputs = llm.generate(PROMPTS, greedy(12))
    assert all(isinstance(output.error, EngineDead) for output in outputs)
    with pytest.raises(EngineDead, match="ZeroDivisionError"):
        llm.submit(PROMPTS[0], greedy(1))
    with pytest.raises(EngineDead):
        llm.generate(PROMPTS, greedy(1))
    assert not llm.is_running


# -------------------------------------------------------------------- cancel, stop, many


def test_cancel_after_any_number_of_tokens(llm, expected):
    @given(st.lists(st.one_of(st.none(), st.integers(0, 12)), min_size=6, max_size=6))
    @settings(max_examples=12)
    def run(cancelled_after: list[int | None]) -> None:
        streams = [llm.stream(prompt, greedy(12)) for prompt in PROMPTS]
        for stream, tokens, count in zip(streams, expected, cancelled_after, strict=True):
            got: tuple[int, ...] = ()
            while count is None or len(got) < count:
                delta = next(stream, None)
                if delta is None:
                    break
                got += delta.token_ids
            stream.close()
            assert got == tokens[: len(got)]
            assert count is not None or got == tokens
        assert _ids(llm.generate(PROMPTS, greedy(12))) == expected

    run()


def test_close_in_the_middle_ends_everything(llm):
    handles = [llm.submit(prompt, greedy(40)) for prompt in PROMPTS * 3]
    next(handles[0].deltas())
    threads = [threading.Thread(target=llm.close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    outputs = [handle.result(30) for handle in handles]
    assert all(output.error is None or isinstance(output.error, EngineStopped) for output in outputs)
    assert isinstance(outputs[-1].error, EngineStopped)
    with pytest.raises(EngineStopped):
        llm.submit(PROMPTS[0], greedy(1))


def test_hundreds_of_requests_from_several_threads(llm, expected):
    results: dict[int, list[tuple[int, ...]]] = {}

    def work(i: int) -> None:
        results[i] = _ids(llm.generate(PROMPTS * 15, greedy(3)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(3)] == [[tokens[:3] for tokens in expected] * 15] * 3


@pytest.mark.slow
def test_memory_returns_after_two_hundred_rounds(llm, wired, no_logs):
    _hook(wired, lambda ids: _raise("token 77") if (ids == 77).any() else None)

    def play_round() -> None:
        handles = [llm.submit(prompt, greedy(4)) for prompt in (*PROMPTS[:4], [5, SICK], [77])]
        handles[0].cancel()
        for handle in handles:
            handle.result(60)

    def resident_bytes() -> int:
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(40):
        play_round()
    before = resident_bytes()
    for _ in range(200):
        play_round()
    assert resident_bytes() - before < 8 << 20
