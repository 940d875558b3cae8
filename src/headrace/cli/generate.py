"""`headrace generate`: complete prompts from the command line or from a file of JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from headrace.cli.batch_input import Task, tasks_from_lines, tasks_from_prompts
from headrace.cli.batch_output import FinishedTasks, resume
from headrace.cli.batch_run import BatchRun
from headrace.cli.engine_arguments import (
    add_engine_arguments,
    add_model_arguments,
    add_sampling_arguments,
    open_llm,
    sampling_params,
)
from headrace.cli.print_text import print_texts
from headrace.engine.progress import Progress
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import ConfigError

if TYPE_CHECKING:
    from headrace import LLM

INTERRUPTED = 130

_EPILOG = """\
Each line of --input is {"prompt": "..."}, {"prompt": [ids]} or {"messages": [...]}; it may have an "id", which is
handed back, and any sampling parameter, which overrides the flag. A line of --output has the same id, the number of
the input's line as "index", and "outputs" or an "error". Run again with the same --output, what is finished is not
done again; lines that ended with an error are. Exit code: 0 all good, 1 some failed, 2 wrong usage, 130 interrupted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = "headrace generate MODEL (--prompt TEXT | --input FILE) [--output FILE] [options]"
    parser.epilog = _EPILOG
    add_model_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", action="append", metavar="TEXT", help="a prompt; may be given several times")
    source.add_argument("--input", type=Path, metavar="FILE", help="prompts as JSON lines, - for the standard input")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where results go, as JSON lines (default: the standard output, for --prompt as plain text)",
    )
    parser.add_argument("--overwrite", action="store_true", help="start anew instead of going on from --output")
    parser.add_argument("--chat", action="store_true", help="send each text prompt as a user's message")
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="show progress on stderr (default: on a terminal)"
    )
    add_sampling_arguments(parser)
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    sampling_params(arguments)  # what is wrong with them is said before the model is loaded
    if arguments.prompt is not None and arguments.output is None:
        with open_llm(arguments) as llm:
            params = sampling_params(arguments, llm.default_sampling_params)
            tasks = tasks_from_prompts(arguments.prompt, params, as_chat=arguments.chat)
            return 1 if print_texts(llm, list(tasks)) else 0
    _check_files(arguments)
    finished = resume(arguments.output) if arguments.output and not arguments.overwrite else FinishedTasks()
    if finished.num_finished:
        print(f"headrace: {finished.num_finished} requests are finished already", file=sys.stderr)
    with open_llm(arguments) as llm:
        return _run_batch(llm, arguments, sampling_params(arguments, llm.default_sampling_params), finished)


def _check_files(arguments: argparse.Namespace) -> None:
    """Say that a file is missing before the model is loaded."""
    source, output = arguments.input, arguments.output
    if source is not None and str(source) != "-" and not source.is_file():
        raise ConfigError(f"--input {source}: there is no such file")
    if output is not None and not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {output}: its folder does not exist")
    if source is not None and output is not None and source.absolute() == output.absolute():
        raise ConfigError(f"--output {output} is the input")


def _run_batch(llm: LLM, arguments: argparse.Namespace, params: SamplingParams, finished: FinishedTasks) -> int:
    with ExitStack() as stack:
        sink = _open_sink(arguments, stack)
        show = sys.stderr.isatty() if arguments.progress is None else arguments.progress
        progress = Progress(sys.stderr if show else None, _count(arguments, finished))
        stack.callback(progress.close)
        batch = BatchRun(llm, lambda record: _write(sink, record), progress)
        try:
            batch.run(filterfalse(finished.has, _tasks(arguments, params, stack)))
        except KeyboardInterrupt:
            again = "; the same command goes on from here" if arguments.output else ""
            print(f"\nheadrace: interrupted after {progress}{again}", file=sys.stderr)
            return INTERRUPTED
        return 1 if batch.num_failed else 0


def _tasks(arguments: argparse.Namespace, params: SamplingParams, stack: ExitStack) -> Iterator[Task]:
    if arguments.prompt is not None:
        return tasks_from_prompts(arguments.prompt, params, as_chat=arguments.chat)
    if str(arguments.input) == "-":
        return tasks_from_lines(sys.stdin.buffer, params, as_chat=arguments.chat)
    return tasks_from_lines(stack.enter_context(arguments.input.open("rb")), params, as_chat=arguments.chat)


def _count(arguments: argparse.Namespace, finished: FinishedTasks) -> int | None:
    """How many requests are to be done; None where that is not known before the end."""
    if arguments.prompt is not None:
        return len(arguments.prompt) - finished.num_finished
    if str(arguments.input) == "-":
        return None
    with arguments.input.open("rb") as lines:
        return sum(1 for line in lines if line.strip()) - finished.num_finished


def _open_sink(arguments: argparse.Namespace, stack: ExitStack) -> BinaryIO:
    if arguments.output is None:
        return sys.stdout.buffer
    sink: BinaryIO = stack.enter_context(arguments.output.open("wb" if arguments.overwrite else "ab"))
    return sink


def _write(sink: BinaryIO, record: dict[str, Any]) -> None:
    # Half a surrogate pair has no UTF-8; Python's backslash escape for it is also JSON's.
    sink.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    sink.flush()
