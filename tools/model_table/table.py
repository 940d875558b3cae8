"""Runs every decoder class of transformers through headrace and writes `docs/models.md`.

::

    python -m tools.model_table.table            # all of them, a process per core
    python -m tools.model_table.table llama bart # print what becomes of these, write nothing
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one model type.

    Attributes:
        model_type: as in a checkpoint's config.json. class_name: what AutoModelForCausalLM builds for it.
        reason: why it does not run; None when it gives the same tokens as `generate` in every situation.
        groups: its cache groups, in words. fusion: what of it runs on the CPU kernels, in words.
        wrong: it was accepted, and gave other tokens or failed. That is a bug, and has no place in the page.
    """

    model_type: str
    class_name: str
    reason: str | None = None
    groups: tuple[str, ...] = ()
    fusion: str = ""
    wrong: bool = False

    @property
    def works(self) -> bool:
        """Whether it gives the same tokens as `generate`."""
        return self.reason is None


def judge(model_type: str) -> Verdict:
    """Try one model type in every situation."""
    from tools.model_table.equality import expected_tokens, run
    from tools.model_table.fusion import fusion_of
    from tools.model_table.overrides import NO_DECODER
    from tools.model_table.tiny_configs import class_name, make_model

    from headrace.errors import ModelNotSupported

    name = class_name(model_type)
    if model_type in NO_DECODER:
        return Verdict(model_type, name, NO_DECODER[model_type])
    model = make_model(model_type)
    try:
        outcomes = run(model)
        expected = expected_tokens(model)
    except ModelNotSupported as error:
        # "class: what was found; why": the why is worth a line in the page, where it is known.
        return Verdict(model_type, name, str(error).removeprefix(f"{name}: ").rpartition("; ")[2])
    except Exception as error:
        return Verdict(model_type, name, f"{type(error).__name__}: {error}", wrong=True)
    differing = [situation for situation, outcome in outcomes.items() if outcome.tokens != expected]
    if differing:
        return Verdict(model_type, name, f"other tokens: {', '.join(differing)}", wrong=True)
    return Verdict(model_type, name, groups=outcomes["mixed"].groups, fusion=str(fusion_of(model) or "nothing"))


def judge_all(model_types: Sequence[str], num_processes: int | None = None) -> list[Verdict]:
    """Try many model types, in a process per core, one thread each."""
    processes = num_processes or len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_prepare_worker) as pool:
        return list(pool.map(judge, model_types))


def page(verdicts: Iterable[Verdict], transformers_version: str) -> str:
    """The page, in Markdown."""
    verdicts = sorted(verdicts, key=lambda verdict: (verdict.class_name.lower(), verdict.model_type))
    working = [verdict for verdict in verdicts if verdict.works]
    others = [verdict for verdict in verdicts if not verdict.works]
    lines = [
        "# Models",
        "",
        f"Every model type that `AutoModelForCausalLM` of transformers {transformers_version} knows: "
        f"**{len(working)} of {len(verdicts)} run** ({_num_classes(working)} of {_num_classes(verdicts)} classes).",
        "",
        "Each was built in a tiny random configuration (float32, 2 to 4 layers, window and chunk of 8 tokens where the",
        "class has one) and given prompts of 1, 6, 19 and 30 tokens. It runs when its greedy tokens equal those of its",
        "own `generate` alone, in a mixed batch, with prefix hits, in chunks of 7 tokens, and after preemption. The",
        "others are refused when they are loaded, with the reason below.",
        "",
        "The last column says which of its modules run on the CPU kernels, with their numbers: `all` is every decoder",
        "layer with its attention, feed-forward block or experts, norms and linear layers. What is missing there runs",
        "as transformers has it. `headrace doctor MODEL` says why.",
        "",
        "Written by `python -m tools.model_table.table`; do not edit.",
        "",
        f"## They run ({len(working)})",
        "",
        "| class | model type | cache of the tiny model | on the CPU kernels |",
        "|---|---|---|---|",
        *(f"| {v.class_name} | `{v.model_type}` | {', '.join(v.groups)} | {v.fusion} |" for v in working),
        "",
        f"## They do not ({len(others)})",
        "",
        "| class | model type | reason |",
        "|---|---|---|",
        *(f"| {v.class_name} | `{v.model_type}` | {v.reason} |" for v in others),
        "",
    ]
    return "\n".join(lines)


def _num_classes(verdicts: Iterable[Verdict]) -> int:
    return len({verdict.class_name for verdict in verdicts})


def _prepare_worker() -> None:
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


def main(arguments: Sequence[str]) -> int:
    """Entry point; returns the exit status: 1 when a model that was accepted gives other tokens."""
    import transformers
    from tools.model_table.tiny_configs import model_types

    verdicts = judge_all(arguments or model_types())
    for verdict in verdicts:
        if verdict.wrong or arguments:
            print(f"{verdict.model_type}: {verdict.reason or ', '.join(verdict.groups)}")
    if any(verdict.wrong for verdict in verdicts):
        return 1
    if not arguments:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(verdicts, transformers.__version__))
        print(f"{PAGE}: {sum(verdict.works for verdict in verdicts)} of {len(verdicts)} run")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
