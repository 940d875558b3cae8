"""What an engine makes of the settings, the model and the memory that is there."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace import LLM, EngineConfig
from headrace.engine.cache.groups import CacheGroup
from headrace.engine.cache.sizing import size_cache
from headrace.engine.runner import startup
from headrace.errors import ConfigError, ModelNotSupported
from headrace.model.attention.context import PagedContext
from headrace.model.attention.torch_paged import TorchAttention
from headrace.model.kernels.library import available_isas
from tests.engine.reference import PROMPTS, greedy, own_tokens


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make allocations raise of more than so many blocks, or (but for the proof's two) of more bytes a value."""

    def set_limit(blocks: int, itemsize: int = 4) -> None:
        allocate = TorchAttention.allocate

        def limited(self: Any, layer: Any, num_blocks: int, size: int, dtype: torch.dtype, device: Any) -> Any:
            if num_blocks > blocks or (dtype.itemsize > itemsize and num_blocks > 2):
                raise RuntimeError(f"can't allocate memory for {num_blocks} blocks of {dtype}")
            return allocate(self, layer, num_blocks, size, dtype, device)

        monkeypatch.setattr(TorchAttention, "allocate", limited)

    return set_limit


def _open(model: Any, **settings: Any) -> LLM:
    return LLM(copy.deepcopy(model), attn_implementation="torch", **settings)


def test_the_defaults_fit_the_model_and_are_told(tiny_model):
    with _open(tiny_model) as llm:
        assert (llm.config.max_model_len, llm.config.max_num_seqs, llm.config.max_num_batched_tokens) == (512, 64, 512)
        assert llm.config.num_blocks == 64 * 16
        assert llm.dump_state()["cache"]["pools"][0]["total"] == 64 * 16


def test_given_blocks_are_the_blocks_and_the_longest_request_follows(tiny_model):
    with _open(tiny_model, num_blocks=5, block_size=8) as llm:
        assert llm.dump_state()["cache"]["pools"][0]["total"] == 5
        assert llm.config.max_model_len == 40
        outputs = llm.generate([PROMPTS[4], [5] * 40, PROMPTS[0]], greedy(100))
        assert [len(output.outputs[0].token_ids) for output in (outputs[0], outputs[2])] == [10, 35]
        assert "max_model_len=40" in str(outputs[1].error)


def test_an_allocation_that_raises_steps_down_and_says_so(tiny_model, limit, caplog):
    limit(300)
    with caplog.at_level(logging.WARNING), _open(tiny_model) as llm:
        assert 2 < llm.config.num_blocks <= 300
        tokens = llm.generate([PROMPTS[0]], greedy(5))[0].outputs[0].token_ids
        assert tokens == own_tokens(tiny_model, PROMPTS[0], 5)
    assert "does not fit" in caplog.text


def test_a_request_longer_than_the_memory_is_shortened_and_said(tiny_model, monkeypatch, caplog):
    block_bytes = 2 * 2 * 16 * 2 * 4 * 16  # layers · kv heads · head size · keys and values · bytes · tokens
    monkeypatch.setattr(startup, "_activation_bytes", lambda *_: 0)
    monkeypatch.setattr(startup, "available_bytes", lambda _: 10 * block_bytes)
    with caplog.at_level(logging.WARNING), _open(tiny_model, block_size=16, max_memory_percent=1.0) as llm:
        assert (llm.config.num_blocks, llm.config.max_model_len) == (10, 160)
    assert "160" in caplog.text
    assert "512" in caplog.text


def test_no_memory_is_an_error_with_the_numbers(tiny_model, monkeypatch):
    monkeypatch.setattr(startup, "available_bytes", lambda _: 1000)
    model = copy.deepcopy(tiny_model)
    with pytest.raises(ConfigError, match=r"[\d,]+ bytes hold 64 tokens"):
        LLM(model)
    assert own_tokens(model, PROMPTS[0], 3) == own_tokens(tiny_model, PROMPTS[0], 3), "the model is given back"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_num_seqs": 100, "max_num_batched_tokens": 10}, "max_num_seqs may be at most 10"),
        ({"max_model_len": 1000}, "made for 512 positions"),
        ({"num_blocks": 1}, "room for 32 tokens"),
        ({"scheduler": "random"}, "fifo.*prefill_first"),
        ({"block_size": 12}, "power of two"),
        ({"block_siz": 8}, "did you mean 'block_size'"),
        ({"num_blocks": 0}, "num_blocks=0"),
        ({"max_memory_percent": 0.0}, "max_memory_percent"),
        ({"safety_margin": 1.0}, "safety_margin"),
        ({"attn_implementation": "none"}, "none"),
        ({"device": "nowhere"}, "device='nowhere'"),
        ({"use_cuda_graph": True}, "needs a CUDA device"),
    ],
)
def test_settings_that_contradict_each_other_or_the_model_are_refused(tiny_model, tmp_path, settings, words):
    model: Any = copy.deepcopy(tiny_model)
    if "device" in settings:
        tiny_model.save_pretrained(tmp_path)
        model = str(tmp_path)
    with pytest.raises(ConfigError, match=words):
        LLM(model, **settings)
    if not isinstance(model, str):
        assert own_tokens(model, PROMPTS[0], 3) == own_tokens(tiny_model, PROMPTS[0], 3)


@pytest.mark.parametrize("model", ["/nowhere/at/all", 5, None, torch.nn.Linear(2, 2)])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(ModelNotSupported):
        LLM(model)


def test_a_full_pool_shrinks_with_the_budget_and_a_windows_does_not_below_one_request():
    full, window = CacheGroup((0,), 100), CacheGroup((1,), 100, window=64)
    options: dict[str, Any] = {"block_size": 16, "max_num_seqs": 32, "step_tokens": 128}
    all_of_it = size_cache([full, window], budget_bytes=10**9, max_model_len=4096, **options)
    one = window.max_blocks(4096, 128, 16)
    assert all_of_it.num_blocks == (32 * 256, 32 * one)
    assert all_of_it.max_model_len == 4096
    tight = size_cache([full, window], budget_bytes=100 * 100, max_model_len=4096, **options)
    assert tight.num_bytes <= 100 * 100
    assert one <= tight.num_blocks[1] < 32
    assert tight.max_model_len == tight.num_blocks[0] * 16
    tighter = size_cache([window], budget_bytes=5 * 100, max_model_len=4096, **options)
    assert (tighter.num_blocks, tighter.max_model_len) == ((5,), 80)
    given = size_cache([full, window], budget_bytes=0, max_model_len=4096, num_blocks=100, **options)
    assert given.num_blocks == (100, one)
    assert given.max_model_len == 1600


def test_a_half_precision_cache_is_the_last_resort(tiny_model, limit, caplog):
    limit(10**9, itemsize=2)
    with caplog.at_level(logging.WARNING), _open(tiny_model, num_blocks=64) as llm:
        assert llm.config.num_blocks == 64
        assert llm.generate([PROMPTS[0]], greedy(1))[0].error is None
    assert "torch.float32 does not fit" in caplog.text


def test_the_cpu_kernels_are_never_given_a_cache_of_another_dtype(tiny_model, monkeypatch):
    if not available_isas():
        pytest.skip("the CPU kernels were not built here")
    allocate = PagedContext.allocate

    def only_half(self: PagedContext, num_blocks: Any, block_size: int, dtype: torch.dtype, device: Any) -> None:
        if dtype == torch.float32 and num_blocks[0] > 2:  # two are the proof's
            raise MemoryError("no room")
        allocate(self, num_blocks, block_size, dtype, device)

    monkeypatch.setattr(PagedContext, "allocate", only_half)
    with pytest.raises(ConfigError, match="no room"):
        LLM(copy.deepcopy(tiny_model), attn_implementation="cpu", num_blocks=64)


def test_when_nothing_fits_the_model_is_given_back(tiny_model, limit):
    limit(5)
    model = copy.deepcopy(tiny_model)
    with pytest.raises(ConfigError, match="no cache fits: can't allocate memory for 64 blocks"):
        LLM(model, attn_implementation="torch", num_blocks=64)
    assert own_tokens(model, PROMPTS[0], 3) == own_tokens(tiny_model, PROMPTS[0], 3)


def test_a_config_is_settings_by_name():
    assert EngineConfig.from_settings({"block_size": 8}) == EngineConfig(block_size=8)


@given(
    st.lists(st.tuples(st.integers(1, 500), st.sampled_from([None, 16, 300])), min_size=1, max_size=3),
    st.integers(1, 10**6),
    st.sampled_from([1, 16, 32]),
    st.integers(1, 3000),
    st.integers(1, 40),
    st.integers(1, 300),
)
def test_a_size_is_within_the_budget_and_the_longest_request_fits_alone(
    kinds: list[tuple[int, int | None]], budget: int, block_size: int, max_model_len: int, seqs: int, step: int
) -> None:
    groups = [CacheGroup((i,), size, window=window) for i, (size, window) in enumerate(kinds)]
    try:
        found = size_cache(
            groups,
            block_size=block_size,
            budget_bytes=budget,
            max_model_len=max_model_len,
            max_num_seqs=seqs,
            step_tokens=step,
        )
    except ConfigError:
        shares = [seqs * group.max_blocks(max_model_len, step, block_size) * group.block_bytes for group in groups]
        smallest = min(share / group.block_bytes for share, group in zip(shares, groups, strict=True)) / sum(shares)
        assert budget * smallest < 4, "refused though each group's share is more than the shortest request needs"
        return
    assert found.num_bytes <= budget
    assert 1 <= found.max_model_len <= max_model_len
    for group, count in zip(groups, found.num_blocks, strict=True):
        needed = group.max_blocks(found.max_model_len, step, block_size)
        assert count >= min(needed, -(-found.max_model_len // block_size))
