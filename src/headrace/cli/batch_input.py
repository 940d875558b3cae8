"""What `headrace generate` is asked to do: one task per line of its input."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from headrace.engine.sampling_params import SamplingParams
from headrace.errors import HeadraceError, InvalidRequest

_SAMPLING = tuple(field.name for field in fields(SamplingParams))
_KEYS = ("prompt", "messages", "id", *_SAMPLING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One prompt.

    Attributes:
        index: number of its line, from 1.
        id: the line's own name for it, handed back with the result; any JSON value.
        prompt: text or token ids; None where there are messages.
        messages: a conversation; None where there is a prompt.
        params: how to sample.
        error: why the line cannot be run; then there is neither prompt nor messages.
    """

    index: int
    params: SamplingParams
    id: Any = None
    prompt: str | list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    error: HeadraceError | None = None


def tasks_from_lines(lines: Iterable[str | bytes], params: SamplingParams, *, as_chat: bool = False) -> Iterator[Task]:
    """Read JSON lines one by one; a bad line is a task with an error. Empty lines are skipped, but counted.

    Args:
        lines: `{"prompt": text or ids}` or `{"messages": [...]}`, with "id" and sampling parameters if wanted.
        params: for what a line does not say itself.
        as_chat: send text prompts as a user's message.
    """
    for index, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name: Any = None
        try:
            record = _record(line)
            name = record.get("id")
            task = _task(index, record, params)
        except (HeadraceError, UnicodeDecodeError) as error:
            yield Task(index=index, id=name, params=params, error=InvalidRequest(f"line {index}: {error}"))
        else:
            yield _as_chat(task) if as_chat else task


def tasks_from_prompts(prompts: Iterable[str], params: SamplingParams, *, as_chat: bool = False) -> Iterator[Task]:
    """The prompts of the command line as tasks."""
    for index, prompt in enumerate(prompts, start=1):
        task = Task(index=index, prompt=prompt, params=params)
        yield _as_chat(task) if as_chat else task


def _as_chat(task: Task) -> Task:
    if not isinstance(task.prompt, str):
        return task
    return replace(task, prompt=None, messages=[{"role": "user", "content": task.prompt}])


def _record(line: str | bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(record, dict):
        raise InvalidRequest(f'a JSON object such as {{"prompt": "..."}} is needed, not {type(record).__name__}')
    return record


def _task(index: int, record: dict[str, Any], params: SamplingParams) -> Task:
    for key in record:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1, cutoff=0.0)[0]
            raise InvalidRequest(f"unknown key {key!r}; did you mean {near!r}?")
    if ("prompt" in record) == ("messages" in record):
        raise InvalidRequest('either "prompt" or "messages" is needed, and not both')
    overrides = {name: record[name] for name in _SAMPLING if name in record}
    return Task(
        index=index,
        id=record.get("id"),
        prompt=_prompt(record["prompt"]) if "prompt" in record else None,
        messages=_messages(record["messages"]) if "messages" in record else None,
        params=replace(params, **_typed(overrides)) if overrides else params,
    )


def _prompt(prompt: Any) -> str | list[int]:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in prompt):
        return prompt
    raise InvalidRequest('"prompt" must be a string or a list of token ids')


def _messages(messages: Any) -> list[dict[str, Any]]:
    if isinstance(messages, list) and all(isinstance(message, dict) for message in messages):
        return messages
    raise InvalidRequest('"messages" must be a list of objects with "role" and "content"')


def _typed(overrides: dict[str, Any]) -> dict[str, Any]:
    """JSON has only strings for keys; `logit_bias` wants token ids."""
    bias = overrides.get("logit_bias")
    if not isinstance(bias, dict):
        return overrides
    try:
        return {**overrides, "logit_bias": {int(token): value for token, value in bias.items()}}
    except ValueError as error:
        raise InvalidRequest(f'the keys of "logit_bias" must be token ids: {error}') from error
