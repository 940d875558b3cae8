"""Held-out accuracy: the model answers questions it was never trained on, greedily, and each answer is marked."""

from __future__ import annotations

import random
from collections.abc import Iterable

import torch
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from builtin_model.base import Example, Skill, draw

EVAL_SEED = 20_000_003


def held_out_examples(skill: Skill, count: int, seed: int = EVAL_SEED) -> list[Example]:
    """The same held-out questions each time for a seed."""
    rng = random.Random(f"{seed}|{skill.name}")
    return [draw(skill, rng, held_out=True) for _ in range(count)]


def messages(example: Example) -> list[dict[str, str]]:
    """The conversation up to the question, as a chat template takes it."""
    turns = (*example.context, ("user", example.prompt))
    return [{"role": role, "content": content} for role, content in turns]


@torch.inference_mode()
def answer_all(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, examples: list[Example], batch: int = 64
) -> list[str]:
    """Greedy answers, in batches padded on the left."""
    answers: list[str] = []
    tokenizer.padding_side = "left"
    for start in range(0, len(examples), batch):
        part = examples[start : start + batch]
        texts = [
            tokenizer.apply_chat_template(messages(example), tokenize=False, add_generation_prompt=True)
            for example in part
        ]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        output = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=160, do_sample=False
        )
        new = output[:, inputs["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(new, skip_special_tokens=True)
    return answers


Result = tuple[float, list[tuple[str, str, str]]]


def evaluate(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, skills: Iterable[Skill], count: int
) -> dict[str, Result]:
    """For each skill the share of right answers, and the wrong ones as (prompt, expected, got)."""
    results: dict[str, Result] = {}
    for skill in skills:
        examples = held_out_examples(skill, count)
        answers = answer_all(model, tokenizer, examples, batch=16 if "long" in skill.name else 64)
        wrong = [
            (example.prompt, example.answer, answer)
            for example, answer in zip(examples, answers, strict=True)
            if not skill.check(example, answer)
        ]
        results[skill.name] = (1 - len(wrong) / count, wrong)
    return results
