"""The text of one answer, taken apart while it is generated.

::

    text ─► a call that the client demands? ─► JsonCallReader ──────────────► ToolCallPart
         └► a response template? ─► transformers' ResponseParser ─ events ──► ContentPart | ReasoningPart | ToolCallPart
         └► else ───────────────────────────────────────────────────────────► ContentPart, as it is
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.protocol.parts import ContentPart, Part, ReasoningPart, ToolCallPart, ToolChoice
from headrace.text.answers.json_calls import JsonCallReader
from headrace.text.answers.response_format import REASONING_FIELDS, TOOL_FIELD, AnswerFormat
from headrace.text.answers.tool_region import ToolRegions

_log = logging.getLogger(__name__)
_AUTO = ToolChoice()


class AnswerParser:
    """Reads one answer. Text is never lost: a call that is no JSON comes as content.

    White space next to reasoning and to calls is layout and dropped; an answer without them comes byte for byte.

    Args:
        answer_format: how the model writes. prompt_tail: the end of the prompt, with its special tokens: a chat
            template may begin the answer itself (`<think>`).
        tools: that may be called, in the form of chat templates; None or empty: no calls are looked for.
        choice: of the client. new_id: makes the id of a call from its index.

    Attributes:
        needs_special_tokens: whether the text must be decoded with its special tokens: the marks may be such.
        marks_reasoning: whether reasoning can be told from content. is_reasoning: whether the text so far ends in it.
    """

    def __init__(
        self,
        answer_format: AnswerFormat,
        *,
        prompt_tail: str = "",
        tools: Sequence[Mapping[str, Any]] | None = None,
        choice: ToolChoice = _AUTO,
        new_id: Callable[[int], str] = "call_{}".format,
    ) -> None:
        """Nothing read yet."""
        self._named = choice.name if tools and choice.mode == "named" else None
        self._reader = JsonCallReader(0, new_id) if tools and choice.mode == "required" else None
        self._new_id = new_id
        self._held = ""  # white space that is text only if more of the same region follows
        self._drops_space = False
        self._ended = False
        self._regions: Any = None
        self.is_reasoning = False
        forced = self._named is not None or self._reader is not None
        template = None if forced else _template(answer_format, bool(tools) and choice.mode != "none")
        self.needs_special_tokens = template is not None
        self.marks_reasoning = template is not None and bool(template["fields"].keys() & REASONING_FIELDS)
        if template is not None:
            from transformers.utils.chat_parsing import ResponseParser

            field = answer_format.template["fields"].get(TOOL_FIELD, {}) if answer_format.template else {}
            self._calls = ToolRegions(field, new_id)
            self._regions = ResponseParser(template, prefix=_begun(template, prompt_tail), tools=list(tools or ()))
            self._read(lambda: self._regions.initial_events, "")  # what the prompt says itself is not the answer's

    def push(self, text: str) -> list[Part]:
        """Take more text of the answer."""
        if not text:
            return []
        if self._reader is not None:
            return list(self._reader.push(text))
        if self._named is not None:
            return self._push_named(text)
        if self._regions is None:
            return [ContentPart(text)]
        return self._read(lambda: self._regions.feed(text), text)

    def flush(self) -> list[Part]:
        """The end of the answer."""
        if self._regions is None:
            return []
        self._ended = True
        parts = self._read(lambda: self._regions.finalize()[1], "")
        if self._held:
            parts.append(ContentPart(self._held))
        return parts

    def _push_named(self, text: str) -> list[Part]:
        more = ToolCallPart(0, None, None, text)
        if self._named == "":
            return [more]
        name, self._named = self._named, ""
        return [ToolCallPart(0, self._new_id(0), name, ""), more]

    def _read(self, events: Callable[[], list[dict[str, Any]]], text: str) -> list[Part]:
        parts: list[Part] = []
        try:
            for event in events():
                self._take(event, parts)
        except Exception:  # a template of a model's own may ask for what the answer does not have
            _log.warning("the response template does not fit an answer; the rest of it comes as content", exc_info=True)
            self._regions, self.is_reasoning = None, False
            parts.append(ContentPart(self._held + text))
            self._held = ""
        return parts

    def _take(self, event: Mapping[str, Any], parts: list[Part]) -> None:
        kind, name = event["type"], event["field"]
        if name == TOOL_FIELD:
            self._take_call(kind, event, parts)
        elif kind == "region_chunk":
            self._take_text(event["text"], name in REASONING_FIELDS, parts)
        elif name in REASONING_FIELDS:
            self._held, self._drops_space = "", True
            self.is_reasoning = kind == "region_open"

    def _take_call(self, kind: str, event: Mapping[str, Any], parts: list[Part]) -> None:
        if kind == "region_open":
            self._calls.open()
        elif kind == "region_chunk":
            parts += self._calls.push(event["text"])
        else:
            parts += self._calls.close(event["value"], self._ended)
        self._held, self._drops_space = "", True

    def _take_text(self, text: str, is_reasoning: bool, parts: list[Part]) -> None:
        if self._drops_space:
            text = text.lstrip()
            self._drops_space = not text
        text = self._held + text
        kept = text.rstrip()
        self._held = text[len(kept) :]
        if kept:
            parts.append(ReasoningPart(kept) if is_reasoning else ContentPart(kept))


def _template(answer_format: AnswerFormat, with_tools: bool) -> dict[str, Any] | None:
    """The response template for one answer; None when there is nothing to tell apart."""
    if answer_format.template is None:
        return None
    fields = dict(answer_format.template["fields"])
    if with_tools and TOOL_FIELD in fields:
        fields[TOOL_FIELD] = ToolRegions.parsable(fields[TOOL_FIELD])
    else:
        fields.pop(TOOL_FIELD, None)
    if not fields.keys() & (REASONING_FIELDS | {TOOL_FIELD}):
        return None
    fields = {name: {**field, "optional": True} for name, field in fields.items()}
    return {**answer_format.template, "fields": fields}


def _begun(template: Mapping[str, Any], prompt_tail: str) -> str:
    """The end of the prompt if the answer's beginning is in it; else nothing, for the parser would read all of it."""
    anchors = template.get("start_anchor", ())
    anchors = [anchors] if isinstance(anchors, str) else list(anchors)
    pattern = template.get("start_anchor_pattern") or "|".join(map(re.escape, anchors))
    return prompt_tail if re.search(pattern, prompt_tail) else ""
