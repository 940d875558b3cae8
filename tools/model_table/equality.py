"""Does a model give the same greedy tokens through headrace as through its own `generate`, whatever happens to it?

Each situation runs the same prompts, so each is compared with the same expected tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from headrace import LLM, SamplingParams

PROMPT_LENGTHS = (1, 6, 19, 30)
NUM_SHARED = 9
"""Tokens that the two longest prompts begin with alike."""
NEW_TOKENS = 12
BLOCK_SIZE = 4
SITUATIONS = ("alone", "mixed", "prefix hits", "chunked", "preempted")

_PARAMS = SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True)
_ROOMY = {"block_size": BLOCK_SIZE, "num_blocks": 128, "check_integrity": True}
_CHUNKED = _ROOMY | {"max_num_batched_tokens": 7}
# The longest request takes 11 blocks, all together 26.
_TIGHT = _CHUNKED | {"num_blocks": 14, "max_model_len": 44, "safety_margin": 0.0, "enable_prefix_caching": False}

Tokens = tuple[int, ...]


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


def run(model: PreTrainedModel, situations: Sequence[str] = SITUATIONS) -> Iterator[tuple[str, Outcome]]:
    """Run the prompts through headrace, in each of the situations.

    Raises:
        ModelNotSupported: the engine refuses the model. HeadraceError: a request failed.
    """
    wanted = set(situations)
    if wanted & {"alone", "mixed", "prefix hits"}:
        with _engine(model, _ROOMY) as llm:
            if "alone" in wanted:
                yield "alone", _one_by_one(llm)
            if wanted & {"mixed", "prefix hits"}:
                yield "mixed", _together(llm)
            if "prefix hits" in wanted:
                yield "prefix hits", _together(llm)
    for name, settings in (("chunked", _CHUNKED), ("preempted", _TIGHT)):
        if name in wanted:
            with _engine(model, settings) as llm:
                yield name, _together(llm)


@contextmanager
def _engine(model: PreTrainedModel, settings: dict[str, Any]) -> Iterator[LLM]:
    with LLM(model, **settings) as llm:
        yield llm


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
