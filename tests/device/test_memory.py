"""Memory that is not there: at the start settings step down, while running as little as possible fails."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from headrace import LLM, EngineConfig
from headrace.engine import assembly
from headrace.engine.runner import startup
from headrace.engine.runner.profile_run import StepMeter, largest_step
from headrace.errors import ConfigError, OutOfMemory
from tests.device.test_device_runner import SETTINGS
from tests.engine.reference import PROMPTS, greedy, own_tokens

CONFIG = EngineConfig(max_num_batched_tokens=32, max_num_seqs=6, max_model_len=64, block_size=4)


class Allocator:
    """A device's memory: what the model's steps take of it is so many bytes a token."""

    def __init__(self, limit_bytes: int = 10**12, token_bytes: int = 1000) -> None:
        self.limit_bytes = limit_bytes
        self.token_bytes = token_bytes
        self.peak = 0
        self.num_failed = 0
        self.num_freed = 0

    def take(self, num_tokens: int) -> None:
        if num_tokens * self.token_bytes > self.limit_bytes:
            self.num_failed += 1
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {num_tokens * self.token_bytes} bytes")
        self.peak = max(self.peak, num_tokens * self.token_bytes)

    def begin(self) -> None:
        self.peak = 0

    def peak_bytes(self) -> int:
        return self.peak

    def free(self) -> None:
        self.num_freed += 1


@pytest.fixture
def allocator() -> Allocator:
    return Allocator()


@pytest.fixture
def model(tiny_model: Any, allocator: Allocator) -> Any:
    """The tiny model, whose steps take of the allocator's memory."""
    model = copy.deepcopy(tiny_model)

    def take(_: Any, args: Any, options: Any) -> None:
        allocator.take(options["input_ids"].numel())

    model.register_forward_pre_hook(take, with_kwargs=True)
    return model


@pytest.fixture
def measured(allocator: Allocator) -> Iterator[None]:
    """Engines measure their steps with the allocator."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(assembly, "step_meter", lambda paged: StepMeter(paged, assembly.make_runner, allocator))
        yield


def _ids(outputs: Any) -> list[tuple[int, ...]]:
    return [output.outputs[0].token_ids for output in outputs]


@pytest.mark.parametrize(("tokens", "seqs", "length"), [(32, 6, 64), (6, 6, 64), (100, 3, 8), (8192, 256, 40_000)])
def test_the_largest_step_has_all_rows_and_tokens_that_may_be(tokens: int, seqs: int, length: int) -> None:
    config = replace(CONFIG, max_num_batched_tokens=tokens, max_num_seqs=seqs, max_model_len=length)
    plan = largest_step(config, num_groups=2)
    assert len(plan.rows) == seqs
    assert plan.num_tokens == min(tokens, seqs * length)
    lengths = [len(row.token_ids) for row in plan.rows]
    assert lengths == sorted(lengths), "single tokens come first"
    assert all(len(row.block_tables[1]) * 4 >= len(row.token_ids) for row in plan.rows)


def test_the_cache_gets_what_a_measured_step_leaves(
    model: Any, measured: None, allocator: Allocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    block_bytes = 2 * 2 * 16 * 2 * 4 * 4  # layers · kv heads · head size · keys and values · bytes · tokens
    budget = 32 * 1000 + 40 * block_bytes
    monkeypatch.setattr(startup, "available_bytes", lambda _: budget)
    with LLM(model, **{**SETTINGS, "max_memory_percent": 1.0}) as llm:
        assert (llm.config.num_blocks, llm.config.max_num_batched_tokens) == (40, 32)


def test_a_step_that_does_not_fit_at_the_start_becomes_smaller_and_it_is_said(
    model: Any, tiny_model: Any, measured: None, allocator: Allocator, caplog: pytest.LogCaptureFixture
) -> None:
    allocator.limit_bytes = 100 * 1000
    with (
        caplog.at_level(logging.WARNING),
        LLM(model, **{**SETTINGS, "max_num_batched_tokens": 256}) as llm,
    ):
        assert llm.config.max_num_batched_tokens == 64
        assert _ids(llm.generate(PROMPTS, greedy(5))) == [own_tokens(tiny_model, p, 5) for p in PROMPTS]
    assert "CUDA out of memory" in caplog.text
    assert "does not fit" in caplog.text


@pytest.mark.slow
def test_then_fewer_requests_run_at_a_time(model: Any, tiny_model: Any, measured: None, allocator: Allocator) -> None:
    allocator.limit_bytes = 20 * 1000  # the proof's batch takes 17 tokens
    with LLM(model, **{**SETTINGS, "max_num_batched_tokens": 128, "max_num_seqs": 32}) as llm:
        assert (llm.config.max_num_seqs, llm.config.max_num_batched_tokens) == (8, 16)
        assert _ids(llm.generate(PROMPTS, greedy(5))) == [own_tokens(tiny_model, p, 5) for p in PROMPTS]


def test_when_nothing_fits_the_error_says_why_the_first_did_not(
    model: Any, measured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: StepMeter, config: EngineConfig) -> int:
        raise torch.OutOfMemoryError(f"CUDA out of memory with {config.max_num_batched_tokens} tokens")

    monkeypatch.setattr(StepMeter, "__call__", never)
    with pytest.raises(ConfigError, match="CUDA out of memory with 32 tokens"):
        LLM(model, **SETTINGS)


@pytest.fixture
def frees(allocator: Allocator) -> Iterator[Callable[[Any], Any]]:
    """Puts the allocator's `free` in the place of torch's."""

    def put(llm: LLM) -> Any:
        runner: Any = llm._client._core.runner
        runner._free_memory = allocator.free
        return runner

    return put  # type: ignore[return-value]


def test_a_step_that_does_not_fit_while_running_fails_nobody(
    model: Any, tiny_model: Any, allocator: Allocator, frees: Any
) -> None:
    with LLM(model, **SETTINGS) as llm:
        frees(llm)
        expected = [own_tokens(tiny_model, prompt, 12) for prompt in PROMPTS]
        assert _ids(llm.generate(PROMPTS, greedy(12))) == expected
        allocator.limit_bytes = 4 * 1000
        assert _ids(llm.generate(PROMPTS, greedy(12))) == expected
        assert allocator.num_failed > 0
        assert allocator.num_freed > 0
        allocator.limit_bytes, failed = 10**12, allocator.num_failed
        assert _ids(llm.generate(PROMPTS, greedy(12))) == expected
        assert allocator.num_failed == failed
        llm.check_integrity()


def test_only_what_does_not_fit_token_by_token_fails(model: Any, allocator: Allocator, frees: Any) -> None:
    with LLM(model, **SETTINGS) as llm:
        frees(llm)
        allocator.limit_bytes = 999
        outputs = llm.generate(PROMPTS[:2], greedy(4))
        assert all(isinstance(output.error, OutOfMemory) for output in outputs)
        allocator.limit_bytes = 10**12
        assert all(output.error is None for output in llm.generate(PROMPTS[:2], greedy(4)))


def test_graphs_are_given_up_for_a_step_that_twice_did_not_fit(
    model: Any, tiny_model: Any, allocator: Allocator, frees: Any
) -> None:
    with LLM(model, **SETTINGS) as llm:
        runner = frees(llm)
        while llm._client.call(lambda core: core.prepare()):
            pass
        assert runner._graphs.num_captured == 4
        allocator.limit_bytes = 8 * 1000
        prompts = [PROMPTS[4]]
        assert _ids(llm.generate(prompts, greedy(5))) == [own_tokens(tiny_model, PROMPTS[4], 5)]
        assert allocator.num_failed >= 2
        allocator.limit_bytes = 10**12
        llm._client.call(lambda core: None)
        assert _ids(llm.generate(PROMPTS, greedy(5))) == [own_tokens(tiny_model, p, 5) for p in PROMPTS]
