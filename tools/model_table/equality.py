"""Does a model give the same greedy tokens through headrace as through its own `generate`, whatever happens to it?

Each situation runs the same prompts, so each is compared with the same expected tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from headrace import LLM, SamplingParams
from headrace.engine.scheduler.fifo import Fifo
from headrace.engine.scheduler.policy import CacheView, register_policy

PROMPT_LENGTHS = (1, 6, 19, 30)
NUM_SHARED = 9
"""Tokens that the two longest prompts begin with alike."""
NEW_TOKENS = 12

_PARAMS = SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True)
_ROOMY: dict[str, Any] = {"block_size": 4, "num_blocks": 128, "check_integrity": True}
_CHUNKED = _ROOMY | {"max_num_batched_tokens": 7}
# The longest request takes 11 blocks of full attention and 5 of a window, all four together 26 and 15.
_SCARCE = {
    "block_size": 4,
    "check_integrity": True,
    "max_num_batched_tokens": 7,
    "max_model_len": 44,
    "scheduler": "greedy",
    "enable_prefix_caching": False,
}

Tokens = tuple[int, ...]


class Greedy(Fifo):
    """Lets everybody in, so that the cache runs out: the real policies look ahead to avoid that."""

    def admits(self, cache: CacheView) -> bool:
        """Whether there is a free block."""
        return cache.num_running == 0 or cache.num_free > 0


register_policy("greedy", Greedy)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Tokens of each prompt in one situation, and that it really was that situation.

    Attributes:
        tokens: generated, per prompt. num_cached_tokens: prompt tokens that came from the prefix cache.
        num_preemptions: how often a request lost its blocks. groups: the cache's groups, in words.
    """

    tokens: list[Tokens]
    num_cached_tokens: int
    num_preemptions: int
    groups: tuple[str, ...]


def prompts() -> list[list[int]]:
    """The prompts: random token ids above the special ones, of PROMPT_LENGTHS, the last two with a common beginning."""
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.randint(5, 150, (length,), generator=generator).tolist() for length in PROMPT_LENGTHS]
    drawn[-1][:NUM_SHARED] = drawn[-2][:NUM_SHARED]
    return drawn


@torch.inference_mode()
def expected_tokens(model: PreTrainedModel) -> list[Tokens]:
    """What the model's own `generate` gives, greedily, for each prompt alone."""
    results = []
    for prompt in prompts():
        ids = torch.tensor([prompt])
        settings: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        results.append(tuple(output[0, len(prompt) :].tolist()))
    return results


def run(model: PreTrainedModel) -> dict[str, Outcome]:
    """Run the prompts through headrace, in each situation.

    Raises:
        ModelNotSupported: the engine refuses the model. HeadraceError: a request failed.
    """
    outcomes = {}
    with LLM(model, **_ROOMY) as llm:
        outcomes["alone"] = _one_by_one(llm)
        outcomes["mixed"] = _together(llm)
        outcomes["prefix hits"] = _together(llm)
    with LLM(model, **_CHUNKED) as llm:
        outcomes["chunked"] = _together(llm)
    keeps_all = any("full" in group for group in outcomes["mixed"].groups)
    with LLM(model, **_SCARCE, num_blocks=14 if keeps_all else 6) as llm:
        outcomes["preempted"] = _together(llm)
    return outcomes


def _one_by_one(llm: LLM) -> Outcome:
    # A salt of their own keeps these out of the prefix cache of the next situations.
    outputs = [llm.submit(prompt, _PARAMS, cache_salt=f"alone-{i}").result() for i, prompt in enumerate(prompts())]
    return _outcome(llm, outputs)


def _together(llm: LLM) -> Outcome:
    return _outcome(llm, llm.generate(prompts(), _PARAMS))


def _outcome(llm: LLM, outputs: Sequence[Any]) -> Outcome:
    for output in outputs:
        if output.error is not None:
            raise output.error
    state = llm.dump_state()
    return Outcome(
        [output.outputs[0].token_ids for output in outputs],
        sum(output.num_cached_tokens for output in outputs),
        state["counters"]["num_preemptions"],
        tuple(pool["group"] for pool in state["cache"]["pools"]),
    )
