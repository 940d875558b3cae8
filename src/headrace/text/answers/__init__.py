"""What the text of an answer means: content, reasoning, and calls of tools, while it is generated."""

from headrace.protocol.parts import ContentPart, Part, ReasoningPart, ToolCallPart, ToolChoice
from headrace.text.answers.parser import AnswerParser
from headrace.text.answers.response_format import AnswerFormat, answer_format
from headrace.text.answers.tool_choice import tool_call_schema

__all__ = [
    "AnswerFormat",
    "AnswerParser",
    "ContentPart",
    "Part",
    "ReasoningPart",
    "ToolCallPart",
    "ToolChoice",
    "answer_format",
    "tool_call_schema",
]
