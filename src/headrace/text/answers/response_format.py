"""How a model writes reasoning and calls of tools: a response template, of the tokenizer or by the marks in use.

transformers ships parsing templates with tokenizers (`response_template`), and a parser that streams
(`transformers.utils.chat_parsing`). For tokenizers that carry none, the marks in the chat template tell which of the
known ways of writing the model was taught: the marks are what a model learns, its name says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

REASONING_FIELDS = frozenset({"reasoning_content", "reasoning", "thinking"})
TOOL_FIELD = "tool_calls"


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How answers are written.

    Attributes:
        template: a response template in transformers' form; None: every answer is plain content.
    """

    template: Mapping[str, Any] | None = None

    @property
    def writes_reasoning(self) -> bool:
        """Whether reasoning is marked, so that it can be told from content."""
        return self.template is not None and bool(REASONING_FIELDS & self.template["fields"].keys())

    @property
    def writes_tool_calls(self) -> bool:
        """Whether calls of tools can be recognised when the model makes them by its own choice."""
        return self.template is not None and TOOL_FIELD in self.template["fields"]


def answer_format(tokenizer: Any) -> AnswerFormat:
    """The format of a transformers tokenizer: its own response template, or by the marks in its chat template."""
    shipped = getattr(tokenizer, "response_template", None)
    if isinstance(shipped, Mapping) and shipped.get("fields"):
        return AnswerFormat(deepcopy(dict(shipped)))
    chat_template = getattr(tokenizer, "chat_template", None)
    if isinstance(chat_template, Mapping):
        chat_template = "\n".join(str(text) for text in chat_template.values())
    if not isinstance(chat_template, str):
        return AnswerFormat()
    fields: dict[str, Any] = {}
    for marks, make in _REASONING:
        if all(mark in chat_template for mark in marks):
            fields["reasoning_content"] = make()
            break
    for marks, make in _TOOL_CALLS:
        if all(mark in chat_template for mark in marks):
            fields[TOOL_FIELD] = make()
            break
    if not fields:
        return AnswerFormat()
    fields["content"] = _content(chat_template)
    return AnswerFormat({"start_anchor": list(_ANSWER_BEGINS), "fields": fields})


_ANSWER_BEGINS = (
    "<|im_start|>assistant\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|start_of_role|>assistant<|end_of_role|>",
    "<start_of_turn>model\n",
    "<|turn>model\n",
    "<|start|>assistant",
    "<|assistant|>",
    "<｜Assistant｜>",
    "[/INST]",
    "<|im_assistant|>assistant<|im_middle|>",
)
"""What stands right before an answer, in the chat templates in use."""

_ANSWER_ENDS = (
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end_of_text|>", "<turn|>",
    "<|return|>", "<|end|>", "<｜end▁of▁sentence｜>", "</s>", "<｜tool▁calls▁end｜>", "<|tool_calls_section_end|>",
)  # fmt: skip
"""Tokens that close a turn or a list of calls; they are no text, also where the model goes on after one."""

_JSON_CALL = {"type": "function", "function": "{content}"}
_NAMED_CALL = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}


def _content(chat_template: str) -> dict[str, Any]:
    ends = [end for end in _ANSWER_ENDS if end in chat_template or "calls" in end]
    channel = "<|channel|>final<|message|>" in chat_template
    content: dict[str, Any] = {"content": "text", "content_args": {"strip": False}}
    if channel:
        content["open_pattern"] = r"(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>"
        content["close"] = ["<|return|>", "<|end|>"]
    elif ends:
        content["close"] = ends
    return content


def _between(opening: str, close: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"open": opening, "close": close, "content": "text"}


_REASONING: tuple[tuple[tuple[str, ...], Callable[[], dict[str, Any]]], ...] = (
    (
        ("<|channel|>", "analysis"),
        lambda: {
            "open_pattern": r"(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>",
            "close": "<|end|>",
            "content": "text",
        },
    ),
    (("<|channel>thought",), _between("<|channel>thought\n", "<channel|>")),
    (("[THINK]",), _between("[THINK]", "[/THINK]")),
    (("<seed:think>",), _between("<seed:think>", "</seed:think>")),
    (("<think>",), _between("<think>", "</think>")),
)

_TOOL_CALLS: tuple[tuple[tuple[str, ...], Callable[[], dict[str, Any]]], ...] = (
    (
        ("<|channel|>", "functions."),
        lambda: {
            "open_pattern": r"(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? to=functions\.(?P<name>[\w.-]+)"
            r"(?:<\|channel\|>commentary)?\s*(?:<\|constrain\|>)?(?:json)?<\|message\|>",
            "close": "<|call|>",
            "repeats": True,
            "content": "json",
            "transform": _NAMED_CALL,
        },
    ),
    (
        ("<|tool_call>call:",),
        lambda: {
            "open_pattern": r"<\|tool_call>call:(?P<name>[\w.-]+)",
            "close": "<tool_call|>",
            "repeats": True,
            "content": "json",
            "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
            "transform": _NAMED_CALL,
        },
    ),
    (
        ("<tool_call>", "<function="),
        lambda: {
            "open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
            "close_pattern": r"</function>\s*</tool_call>",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>"},
            "transform": _NAMED_CALL,
        },
    ),
    (
        ("<tool_call>", "<arg_key>"),
        lambda: {
            "open_pattern": r"\s*<tool_call>(?P<name>[^<\s]+)",
            "close": "</tool_call>",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {"tag_pattern": r"<arg_key>(?P<key>.*?)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>"},
            "transform": _NAMED_CALL,
        },
    ),
    (
        ("<tool_call>",),
        lambda: {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": _JSON_CALL,
        },
    ),
    (
        ("[TOOL_CALLS]", "[ARGS]"),
        lambda: {
            "open_pattern": r"\[TOOL_CALLS\](?P<name>[^\[{]+?)(?:\[CALL_ID\][^\[]*)?\[ARGS\]",
            "close_pattern": r"(?=\[TOOL_CALLS\])|</s>",
            "repeats": True,
            "content": "json",
            "transform": _NAMED_CALL,
        },
    ),
    (
        ("[TOOL_CALLS]",),
        lambda: {
            "open": "[TOOL_CALLS]",
            "close": "</s>",
            "repeats": True,
            "content": "json",
            "transform": _JSON_CALL,
        },
    ),
    (
        ("<｜tool▁call▁begin｜>", "```json"),
        lambda: {
            "open_pattern": r"\s*(?:<｜tool▁calls▁begin｜>)?\s*<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?"
            r"(?P<name>[^\n<]+)\n```json\n",
            "close_pattern": r"\n?```\s*<｜tool▁call▁end｜>",
            "repeats": True,
            "content": "json",
            "transform": _NAMED_CALL,
        },
    ),
    (
        ("<｜tool▁call▁begin｜>",),
        lambda: {
            "open_pattern": r"\s*(?:<｜tool▁calls▁begin｜>)?<｜tool▁call▁begin｜>(?P<name>[^<]+)<｜tool▁sep｜>",
            "close_pattern": r"<｜tool▁call▁end｜>",
            "repeats": True,
            "content": "json",
            "transform": _NAMED_CALL,
        },
    ),
    (
        ("<|tool_call_argument_begin|>",),
        lambda: {
            "open_pattern": r"\s*(?:<\|tool_calls_section_begin\|>)?<\|tool_call_begin\|>\s*(?:functions\.)?"
            r"(?P<name>[^:<\s]+)(?::\d+)?\s*<\|tool_call_argument_begin\|>",
            "close_pattern": r"<\|tool_call_end\|>",
            "repeats": True,
            "content": "json",
            "transform": _NAMED_CALL,
        },
    ),
    (
        ("<|tool_call|>", "<|/tool_call|>"),
        lambda: {
            "open": "<|tool_call|>",
            "close": "<|/tool_call|>",
            "repeats": True,
            "content": "json",
            "transform": _JSON_CALL,
        },
    ),
    (
        ("<|tool_call|>",),
        lambda: {
            "open": "<|tool_call|>",
            "close": "<|end_of_text|>",
            "repeats": True,
            "content": "json",
            "transform": _JSON_CALL,
        },
    ),
    (
        ("<|start_header_id|>", '"parameters"'),
        lambda: {
            "open_pattern": r"\A(?:<\|python_tag\|>)?\s*(?=\{\s*\"name\")",
            "close": ["<|eom_id|>", "<|eot_id|>"],
            "repeats": True,
            "content": "json",
            "transform": _JSON_CALL,
        },
    ),
)
"""Marks in a chat template, and how calls are written where they are found; the first that fits is taken."""
