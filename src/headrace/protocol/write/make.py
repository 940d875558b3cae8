"""The writer of an endpoint."""

from __future__ import annotations

from headrace.protocol.call import GenerationCall, GenerationEndpoint
from headrace.protocol.write.chat import ChatWriter
from headrace.protocol.write.completions import CompletionsWriter
from headrace.protocol.write.messages import MessagesWriter
from headrace.protocol.write.responses import ResponsesWriter
from headrace.protocol.write.writer import Writer

_WRITERS: dict[GenerationEndpoint, type[Writer]] = {
    "chat": ChatWriter,
    "completions": CompletionsWriter,
    "messages": MessagesWriter,
    "responses": ResponsesWriter,
}


def make_writer(call: GenerationCall, response_id: str, created: int, model: str) -> Writer:
    """The writer of the call's endpoint; the arguments are those of Writer."""
    return _WRITERS[call.endpoint](call, response_id, created, model)
