"""Completions as plain text on the standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from headrace.cli.batch_input import Task
from headrace.cli.batch_run import prompt_of

if TYPE_CHECKING:
    from headrace import LLM, RequestOutput


def print_texts(llm: LLM, tasks: list[Task]) -> int:
    """Print the completion of each prompt, a single one while it is generated; returns how many prompts failed."""
    prompts = [prompt_of(llm, task) for task in tasks]
    if len(prompts) == 1 and tasks[0].params.n == 1:
        return _stream(llm, prompts[0], tasks[0])
    outputs = llm.generate(prompts, [task.params for task in tasks])
    return sum(_print(number, output) for number, output in enumerate(outputs, start=1))


def _stream(llm: LLM, prompt: str | list[int], task: Task) -> int:
    for delta in llm.stream(prompt, task.params):
        sys.stdout.write(delta.text)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


def _print(number: int, output: RequestOutput) -> int:
    """One prompt's completions under headings like those of `head` and `tail`; returns whether it failed."""
    if output.error is not None:
        print(f"headrace: prompt {number}: {output.error}", file=sys.stderr)
        return 1
    for place, completion in enumerate(output.outputs, start=1):
        which = f"{number}, output {place}" if len(output.outputs) > 1 else str(number)
        print(f"==> prompt {which} <==\n{completion.text}\n", flush=True)
    return 0
