"""Makes the built-in model: text, tokenizer, training, held-out accuracy, folder and model card.

    python tools/builtin_model/train.py --out src/headrace/assets/builtin --steps 5000

The same seed, number of steps and kind of machine give the same weights: the learning
rate is held and then falls over the last `--decay` steps, so where a run ends changes
nothing before that. A run can thus be told to end while it goes: on SIGUSR1, or when
`--minutes` are over, it does its last `--decay` steps, and its length is then the
`--steps` that gives the same weights again.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builtin_model.chat import ALL_SKILLS
from builtin_model.evaluate import Result, evaluate
from builtin_model.optim import Optimizer
from builtin_model.save import Run, read_runs, save_folder, write_card
from builtin_model.tokens import Batch, Encoder, batches, train_tokenizer

CONTEXT = 4096


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--init", type=Path, help="folder whose weights to train further; give another --seed then")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--decay", type=int, default=600, help="steps at the end over which the rate falls")
    parser.add_argument("--minutes", type=float, help="begin the last steps after so many minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens in a batch")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=200, help="steps between saves of the folder")
    parser.add_argument("--eval-count", type=int, default=200, help="held-out questions per skill at the end")
    parser.add_argument("--no-compile", action="store_true", help="where no C++ compiler is")
    parser.add_argument("--eval-only", action="store_true", help="measure the folder at --out and write its card anew")
    return parser.parse_args()


def make_model(vocab_size: int, eos: int, pad: int) -> Qwen3ForCausalLM:
    """A small Qwen3: grouped-query attention, q/k norms, tied embeddings."""
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        eos_token_id=eos,
        pad_token_id=pad,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


@dataclass
class Length:
    """How far a run is and how far it goes; the end may be moved to `decay` steps from now."""

    total: int
    decay: int
    step: int = 0

    def finish(self) -> None:
        """Begin the last steps now."""
        self.total = min(self.total, self.step + self.decay)

    @property
    def left(self) -> float:
        """The share of the last steps that is still to come, 1 before them."""
        return min(1.0, (self.total - self.step) / self.decay)

    @property
    def rate(self) -> float:
        """The factor on the learning rates: warm up, hold, fall linearly."""
        return min((self.step + 1) / 100, self.left)


def stream(encoder: Encoder, args: argparse.Namespace, length: Length) -> Iterator[Batch]:
    """Batches without end; in the last steps there are long conversations among them."""
    rng = random.Random(args.seed)
    while True:
        yield from batches(encoder, rng, args.tokens, 0.02 if length.left < 1 else 0.0)


def train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> Run:
    """Train, saving the mean of the weights now and then; on return the model has that mean."""
    optimizer = Optimizer(model, args.muon_lr, args.adam_lr, 0.995)
    for layer in () if args.no_compile else model.model.layers:
        layer.compile(dynamic=True)  # all layers share one compilation
    length = Length(args.steps, args.decay)
    signal.signal(signal.SIGUSR1, lambda *_: length.finish())
    start, seen, losses = time.time(), 0, []
    data = stream(Encoder(tokenizer), args, length)
    while length.left > 0:
        ids, learned = next(data)
        losses.append(train_step(model, optimizer, ids, learned, length.rate))
        length.step, seen = length.step + 1, seen + ids.numel()
        minutes = (time.time() - start) / 60
        if args.minutes and minutes > args.minutes and length.left == 1:
            length.finish()
        if length.step % 20 == 0:
            mean = sum(losses[-20:]) / len(losses[-20:])
            speed = seen / minutes / 60
            print(f"step {length.step}/{length.total} loss {mean:.4f} {speed:.0f} tok/s {minutes:.1f} min", flush=True)
        if length.step % args.save_every == 0:
            optimizer.swap_mean()
            save_folder(model, tokenizer, args.out)
            optimizer.swap_mean()
    optimizer.swap_mean()
    minutes = round((time.time() - start) / 60, 1)
    return Run(args.seed, args.decay, length.step, seen, minutes, args.threads)


def train_step(
    model: Qwen3ForCausalLM, optimizer: Optimizer, ids: torch.Tensor, learned: torch.Tensor, rate: float
) -> float:
    """One update; the vocabulary's logits are computed only where there is something to learn."""
    hidden = model.model(input_ids=ids[:, :-1].contiguous(), use_cache=False).last_hidden_state
    logits = hidden[learned[:, 1:]] @ model.model.embed_tokens.weight.T
    loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][learned[:, 1:]])
    loss.backward()
    optimizer.step(rate)
    return loss.item()


def report(results: dict[str, Result], wrong: int) -> None:
    """Print the accuracy of each skill with some of the wrong answers."""
    for name, (share, misses) in results.items():
        print(f"{name:24} {share:6.1%}", flush=True)
        for prompt, expected, got in misses[:wrong]:
            print(f"    {prompt!r}: expected {expected!r}, got {got[:200]!r}")


def begin(args: argparse.Namespace) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast, list[Run]]:
    """A new model with its tokenizer, or those of a folder with the runs that made them."""
    folder = args.out if args.eval_only else args.init
    if folder:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model, tokenizer, read_runs(folder)
    tokenizer = train_tokenizer(args.seed, 1536, CONTEXT)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    return make_model(len(tokenizer), *ends), tokenizer, []


def main() -> None:
    """Run it all."""
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model, tokenizer, runs = begin(args)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer)} tokens", flush=True)
    if not args.eval_only:
        runs.append(train(model, tokenizer, args))
        save_folder(model, tokenizer, args.out)
    shipped = Qwen3ForCausalLM.from_pretrained(args.out, dtype=torch.float32)
    results = evaluate(shipped, tokenizer, ALL_SKILLS, args.eval_count)
    report(results, wrong=3)
    write_card(args.out, shipped, runs, results, args.eval_count)


if __name__ == "__main__":
    main()
