"""From answers to bytes, one writer per endpoint."""

from __future__ import annotations

from headrace.protocol.write.answer import PromptInfo, TokenLogprob, Usage
from headrace.protocol.write.chat import ChatWriter
from headrace.protocol.write.completions import CompletionsWriter
from headrace.protocol.write.make import make_writer
from headrace.protocol.write.messages import MessagesWriter
from headrace.protocol.write.responses import ResponsesWriter
from headrace.protocol.write.writer import Writer, new_response_id

__all__ = [
    "ChatWriter",
    "CompletionsWriter",
    "MessagesWriter",
    "PromptInfo",
    "ResponsesWriter",
    "TokenLogprob",
    "Usage",
    "Writer",
    "make_writer",
    "new_response_id",
]
