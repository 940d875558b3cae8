"""The file that `headrace generate` writes, and how an interrupted run goes on from it.

One JSON object per line, in the order in which requests finish, each written whole and flushed. Whatever ends the run,
all lines but the last are whole.
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli.batch_input import Task
from headrace.errors import ConfigError, HeadraceError

if TYPE_CHECKING:
    from headrace import CompletionOutput, RequestOutput
    from headrace.engine.outputs import TokenLogprobs

_FIRST_BYTES = b'{"id": '
"""Of every line that is written here: tells a line that was cut off from a file that is something else."""


def result_record(task: Task, output: RequestOutput) -> dict[str, Any]:
    """The line of a request that ran, also when it failed while running."""
    record = {
        **_asked(task),
        "outputs": [_completion(completion) for completion in output.outputs] if output.error is None else [],
        "error": None if output.error is None else _error(output.error),
        "num_prompt_tokens": len(output.prompt_token_ids),
        "num_cached_tokens": output.num_cached_tokens,
        "timing": asdict(output.timing),
    }
    if output.prompt_logprobs is not None:
        record["prompt_logprobs"] = [entry and _logprobs(entry) for entry in output.prompt_logprobs]
    return record


def error_record(task: Task, error: HeadraceError) -> dict[str, Any]:
    """The line of a request that was not accepted."""
    return {**_asked(task), "outputs": [], "error": _error(error)}


class FinishedTasks:
    """Which lines of the input are done, four bytes each: a checksum of what was asked, 0 for not done."""

    def __init__(self) -> None:
        """Start with none."""
        self._checksums = array("I")
        self.num_finished = 0

    def add(self, record: dict[str, Any]) -> None:
        """Note a finished line of the output."""
        index = record["index"]
        self._checksums.extend([0] * (index + 1 - len(self._checksums)))
        self.num_finished += not self._checksums[index]
        self._checksums[index] = _checksum(record)

    def has(self, task: Task) -> bool:
        """Whether the task is done; raises ConfigError when the line with its number was another one."""
        done = self._checksums[task.index] if task.index < len(self._checksums) else 0
        if done and done != _checksum(_asked(task)):
            raise ConfigError(
                f"line {task.index} of the input is not the one that the output has a result for: "
                "choose another --output, or pass --overwrite to start anew"
            )
        return bool(done)


def resume(path: Path) -> FinishedTasks:
    """Read what an earlier run has finished, and leave only that in the file.

    A last line that was cut off and lines that ended with an error are dropped: they will be done again.

    Raises:
        ConfigError: the file is not an output of this command.
    """
    finished, num_dropped = FinishedTasks(), 0
    if not path.exists():
        return finished
    for _, record in _lines(path):
        if record is not None and record["error"] is None:
            finished.add(record)
        else:
            num_dropped += 1
    if num_dropped:
        _keep_finished(path)
    return finished


def _keep_finished(path: Path) -> None:
    """Rewrite the file beside itself, and put it in place at once: there is no moment without a whole file."""
    rewritten = path.with_name(path.name + ".rewriting")
    with rewritten.open("wb") as file:
        file.writelines(line for line, record in _lines(path) if record is not None and record["error"] is None)
    os.replace(rewritten, path)


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Each line with its record; None for a last line that was cut off."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield line, _parse(line, f"{path}, line {number}")


def _parse(line: bytes, where: str) -> dict[str, Any] | None:
    if not line.endswith(b"\n") and line[: len(_FIRST_BYTES)] == _FIRST_BYTES[: len(line)]:
        return None
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if isinstance(record, dict) and isinstance(record.get("index"), int) and "error" in record:
        return record
    raise ConfigError(f"{where}: not a result of `headrace generate`; choose another --output, or pass --overwrite")


def _asked(task: Task) -> dict[str, Any]:
    asked: dict[str, Any] = {"id": task.id, "index": task.index}
    if task.messages is not None:
        return {**asked, "messages": task.messages}
    return {**asked, "prompt": task.prompt}


def _checksum(record: dict[str, Any]) -> int:
    asked = [record.get("id"), record.get("prompt"), record.get("messages")]
    return zlib.crc32(json.dumps(asked, sort_keys=True).encode()) or 1


def _error(error: HeadraceError) -> dict[str, str]:
    return {"code": error.code, "message": str(error)}


def _completion(completion: CompletionOutput) -> dict[str, Any]:
    record: dict[str, Any] = {
        "text": completion.text,
        "token_ids": completion.token_ids,
        "finish_reason": completion.finish_reason,
        "stop_reason": completion.stop_reason,
    }
    if completion.logprobs is not None:
        record["logprobs"] = [_logprobs(entry) for entry in completion.logprobs]
    return record


def _logprobs(entry: TokenLogprobs) -> dict[str, Any]:
    top = [{"token_id": token, "logprob": value} for token, value in entry.top.items()]
    return {"token_id": entry.token_id, "logprob": entry.logprob, "rank": entry.rank, "top": top}
