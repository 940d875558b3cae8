"""What must hold on a CUDA device, as plain functions: `benchmarks/gpu.py` runs them where there is no pytest."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from headrace import LLM, SamplingParams

_RNG = random.Random(1)
PROMPTS = [[_RNG.randrange(3, 420) for _ in range(length)] for length in (5, 1, 17, 8, 30, 2)]
SETTINGS: dict[str, Any] = {
    "block_size": 16,
    "max_num_batched_tokens": 64,
    "max_num_seqs": 6,
    "max_model_len": 128,
    "check_integrity": True,
}


def tiny_model() -> Any:
    """A random Qwen3 in float32, so wide that its tokens vary, on the device."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=420, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=512, initializer_range=0.4,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval().to("cuda")


def _open(model: Any, **settings: Any) -> LLM:
    return LLM(copy.deepcopy(model), **{**SETTINGS, **settings})


def _capture_all(llm: LLM) -> None:
    while llm._client.call(lambda core: core.prepare()):
        pass


def _greedy(count: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=count)


def _ids(outputs: Any) -> list[tuple[int, ...]]:
    return [output.outputs[0].token_ids for output in outputs]


def _own(model: Any, prompt: list[int], count: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt], device="cuda")
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    return tuple(out[0, len(prompt) :].tolist())


def greedy_tokens_are_transformers_own() -> None:
    """With graphs and without, ahead and in step, whole prompts and chunks."""
    model = tiny_model()
    expected = [_own(model, prompt, 20) for prompt in PROMPTS]
    for graphs in (True, False):
        for ahead in (True, False):
            for chunk in (64, 8):
                settings = {"use_cuda_graph": graphs, "async_scheduling": ahead, "max_num_batched_tokens": chunk}
                with _open(model, **settings) as llm:
                    _capture_all(llm)
                    assert _ids(llm.generate(PROMPTS, _greedy(20))) == expected, settings


def settings_of_sampling_are_the_same_under_graphs_and_ahead() -> None:
    """Each request alone, without either, gives what all give together with both."""
    model = tiny_model()
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.8}, {"temperature": 1.0, "top_p": 0.9}, {"temperature": 1.0, "top_k": 5},
        {"temperature": 0.0, "logit_bias": {7: 3.0}}, {"temperature": 0.0, "repetition_penalty": 1.3},
        {"temperature": 0.0, "logprobs": 2}, {"temperature": 0.7, "min_p": 0.1, "min_tokens": 6},
    ]  # fmt: skip
    params = [SamplingParams(**{"max_tokens": 12, "ignore_eos": True, "seed": i, **k}) for i, k in enumerate(kinds)]
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(params))]
    with _open(model, use_cuda_graph=False, async_scheduling=False) as plain:
        alone = [_ids(plain.generate([p], [s]))[0] for p, s in zip(prompts, params, strict=True)]
    with _open(model) as llm:
        _capture_all(llm)
        assert _ids(llm.generate(prompts, params)) == alone


def preemption_and_prefixes_change_no_token() -> None:
    """In a cache that is too small."""
    model = tiny_model()
    prompts = [[*PROMPTS[4], 5 + i] for i in range(6)]
    with _open(model, num_blocks=12, safety_margin=0.0) as llm:
        _capture_all(llm)
        assert _ids(llm.generate(prompts, _greedy(60))) == [_own(model, prompt, 60) for prompt in prompts]


def the_steady_decode_waits_for_nothing() -> None:
    """Torch raises on whatever makes the host wait for the device, while steps are launched."""
    model = tiny_model()
    with _open(model) as llm:
        _capture_all(llm)
        runner: Any = llm._client._core.runner
        launch, launched = runner.launch, [0]

        def watched(plan: Any) -> Any:
            if any(len(row.token_ids) > 1 for row in plan.rows):
                return launch(plan)
            launched[0] += 1
            torch.cuda.set_sync_debug_mode("error")
            try:
                return launch(plan)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        runner.launch = watched
        params = [_greedy(40), SamplingParams(temperature=0.8, top_p=0.9, seed=1, max_tokens=40, ignore_eos=True)] * 3
        outputs = llm.generate(PROMPTS, params)
        assert all(output.error is None for output in outputs)
        assert launched[0] >= 39, launched
        counters = llm.dump_state()["counters"]
        assert counters["num_steps"] < 60, f"steps were run again: {counters}"


CASES: Mapping[str, Callable[[], None]] = MappingProxyType(
    {
        case.__name__: case
        for case in (
            greedy_tokens_are_transformers_own,
            settings_of_sampling_are_the_same_under_graphs_and_ahead,
            preemption_and_prefixes_change_no_token,
            the_steady_decode_waits_for_nothing,
        )
    }
)
