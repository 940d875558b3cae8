"""On the CPU kernels a request's tokens and log-probabilities are the same, to the bit, whatever runs beside it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import tools.model_table.equality
import torch
from tools.model_table.tiny_configs import make_model

from headrace import LLM, SamplingParams
from headrace.model.kernels.library import load_library

pytestmark = pytest.mark.skipif(load_library() is None, reason="the CPU kernels were not built")

KINDS = ("llama", "qwen3", "gemma3_text", "mixtral", "qwen3_moe")
QUICK = ("qwen3", "mixtral")
LENGTHS = (1, 6, 19, 30, 40, 3)
NUM_SHARED = 9
PARAMS = SamplingParams(max_tokens=16, temperature=0.0, ignore_eos=True, logprobs=4)
ROOMY: dict[str, Any] = {"block_size": 4, "num_blocks": 256, "check_integrity": True}
SCARCE = ROOMY | {
    "max_model_len": 64,
    "scheduler": tools.model_table.equality.Greedy.__name__.lower(),  # lets everybody in; registered there
    "enable_prefix_caching": False,
    "max_num_batched_tokens": 9,
}
Bits = list[list[tuple[Any, ...]]]


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.randint(5, 150, (length,), generator=generator).tolist() for length in LENGTHS]
    drawn[3][:NUM_SHARED] = drawn[2][:NUM_SHARED]
    return drawn


def bits(outputs: Sequence[Any]) -> Bits:
    """Of each request its tokens with every log-probability as it is: floats compare equal only with equal bits."""
    for output in outputs:
        assert output.error is None, output.error
    return [
        [(t.token_id, t.logprob, t.rank, tuple(t.top.items())) for t in output.outputs[0].logprobs]
        for output in outputs
    ]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the threads of the kernels and of torch, as far as the next engine is concerned."""
    before = torch.get_num_threads()

    def use(count: int) -> None:
        monkeypatch.setenv("HEADRACE_CPU_THREADS", str(count))
        torch.set_num_threads(count)

    yield use
    torch.set_num_threads(before)


def cases() -> list[Any]:
    return [
        pytest.param(kind, dtype, marks=() if kind in QUICK else pytest.mark.slow, id=f"{kind}-{dtype}")
        for kind in KINDS
        for dtype in ("float32", "bfloat16")
    ]


@pytest.mark.parametrize(("kind", "dtype"), cases())
def test_the_same_alone_and_in_any_batch(kind: str, dtype: str, threads: Any) -> None:
    """Alone; all at once; with prefix hits; in chunks of 9 tokens; after preemptions; on 1, 2 and 3 threads."""
    model = make_model(kind).to(getattr(torch, dtype))
    threads(2)
    with LLM(copy.deepcopy(model), **ROOMY) as llm:
        # A salt of their own keeps these out of the prefix cache of the next.
        alone = bits([llm.submit(p, PARAMS, cache_salt=f"{i}").result() for i, p in enumerate(prompts())])
        together = bits(llm.generate(prompts(), PARAMS))
        again = llm.generate(prompts()[::-1], PARAMS)[::-1]
        keeps_all = any("full" in pool["group"] for pool in llm.dump_state()["cache"]["pools"])
    assert together == alone
    assert sum(output.num_cached_tokens for output in again) > 60
    assert bits(again) == alone
    assert len({token[0] for tokens in alone for token in tokens}) >= 10  # they say something
    for count in (1, 3):
        threads(count)
        with LLM(copy.deepcopy(model), **SCARCE | {"num_blocks": 18 if keeps_all else 7}) as llm:
            outputs = llm.generate(prompts(), PARAMS)
            assert llm.dump_state()["counters"]["num_preemptions"] > 0
        assert bits(outputs) == alone


def test_a_large_vocabulary_beside_torchs_own_threads(threads: Any) -> None:
    """Torch shares a sum of 50,000 numbers out over its threads when it is the only one, and then rounds otherwise."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50_000, max_position_embeddings=64, initializer_range=0.3, **sizes))
    threads(2)
    with LLM(model.eval(), num_blocks=16) as llm:
        alone = bits([llm.submit(prompt, PARAMS, cache_salt=f"{prompt}").result() for prompt in ([5], [6, 7], [8])])
        together = bits(llm.generate([[5], [6, 7], [8]], PARAMS))
    assert together == alone
