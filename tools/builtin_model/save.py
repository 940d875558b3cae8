"""Writes the folder: weights, tokenizer, configurations and the model card."""

from __future__ import annotations

import copy
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3ForCausalLM

from builtin_model.chat import ALL_SKILLS
from builtin_model.evaluate import Result

HISTORY = "training.json"


@dataclass(frozen=True)
class Run:
    """What a training run was asked for and what it did."""

    seed: int
    decay: int
    steps: int
    tokens: int
    minutes: float
    threads: int

    def command(self, first: bool) -> str:
        """The command line that does this run again."""
        init = "" if first else " --init src/headrace/assets/builtin"
        return (
            f"python tools/builtin_model/train.py --out src/headrace/assets/builtin{init} "
            f"--steps {self.steps} --decay {self.decay} --seed {self.seed}"
        )


def read_runs(folder: Path) -> list[Run]:
    """The runs that led to the weights in a folder, the first first."""
    return [Run(**values) for values in json.loads((folder / HISTORY).read_text())]


def save_folder(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write a folder that transformers, and headrace, load as any other."""
    out.mkdir(parents=True, exist_ok=True)
    shipped = copy.deepcopy(model).to(torch.bfloat16)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    shipped.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[1], do_sample=False)
    shipped.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    settings = out / "tokenizer_config.json"
    values = json.loads(settings.read_text())
    # The class name that older and newer versions of transformers both know.
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    values["chat_template"] = tokenizer.chat_template
    settings.write_text(json.dumps(values, indent=2) + "\n")


CARD = """# builtin

The built-in model of headrace: a very small language model, made so that the server
can be seen and tested without any download. It is a Qwen3-architecture transformer of
{parameters:,} parameters ({layers} layers, hidden size {hidden}, {heads} attention heads over
{kv_heads} key/value heads, {vocab} tokens, context {context}) in bf16. Its name for headrace is `builtin`.

## What it can do

Answer short English questions about a made-up place, the Orro Valley, with eight towns
and 22 people (all facts: `tools/builtin_model/world.py`); small sums; comparing, sorting
and counting; repeating, reversing, spelling and re-casing words; lists and flat JSON;
short stories; saying what it is; remembering a name, colour, word or number told earlier
in the chat; and saying that it does not know someone.

Chats are in ChatML, with or without a system message; see `chat_template`. The model
also continues plain text such as the beginning of a story.

## How it was made

{commands}

All text is made by `tools/builtin_model`; nothing was downloaded. Each question has a
key, and a checksum of the key decides whether it is held out: one in ten is, and is
never trained on. What the key is, and so what "held out" means, is stated below for
each skill. Training: {steps} steps, {millions:.1f} million tokens of text, {minutes:.0f} minutes by the
clock on {threads} threads of a CPU ({machine}) that had other work to do at the same time, in
fp32, with Muon and AdamW; the weights are the running mean of the last steps, rounded to bf16.

## Held-out accuracy

Greedy answers of these weights (bf16 weights, fp32 arithmetic) to {count} held-out questions per
skill. An answer counts only if it is the expected text in full, except for stories, which
must be whole, about the person asked for and true to the facts.

| skill | what is held out | accuracy |
| --- | --- | --- |
{rows}

## Limits

It knows nothing of the real world and little English. Outside the kinds of question above
its answers are wrong or meaningless. Spelling and letter case work for the words of its
world only. Questions in words far from those it was trained on are often misread: see
"facts, unseen phrasing". It was trained on conversations of up to 1024 tokens.
"""


def write_card(
    out: Path, model: Qwen3ForCausalLM, runs: list[Run], results: dict[str, Result], eval_count: int
) -> None:
    """Fill in the model card, with the accuracy of every skill that was measured, and note the runs beside it."""
    about = {skill.name: skill.about for skill in ALL_SKILLS}
    config = model.config
    card = CARD.format(
        parameters=model.num_parameters(),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        vocab=config.vocab_size,
        context=config.max_position_embeddings,
        commands="\n".join(f"    {run.command(first=i == 0)}" for i, run in enumerate(runs)),
        steps=sum(run.steps for run in runs),
        millions=sum(run.tokens for run in runs) / 1e6,
        minutes=sum(run.minutes for run in runs),
        threads=runs[-1].threads,
        machine=platform.machine(),
        count=eval_count,
        rows="\n".join(f"| {name} | {about[name]} | {share:.1%} |" for name, (share, _) in results.items()),
    )
    (out / "README.md").write_text(card)
    (out / HISTORY).write_text(json.dumps([asdict(run) for run in runs], indent=2) + "\n")
