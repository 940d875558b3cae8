"""Wire types: the requests and answers of the HTTP interfaces. No torch, no HTTP library, no engine.

bytes ─► parse_chat … ─► GenerationCall ─► (server, engine) ─► parts of answers ─► Writer ─► bytes
             └ the table of fields ─► docs/api.md, /openapi.json
"""

from headrace.protocol.call import Conversation, CountCall, DetokenizeCall, GenerationCall, GuideRequest
from headrace.protocol.error_body import ErrorAnswer, error_body
from headrace.protocol.parse import (
    parse_chat,
    parse_completions,
    parse_count_tokens,
    parse_detokenize,
    parse_drain,
    parse_messages,
    parse_profile,
    parse_responses,
    parse_tokenize,
)
from headrace.protocol.parts import ContentPart, Part, ReasoningPart, ToolCallPart, ToolChoice
from headrace.protocol.write import (
    ChatWriter,
    CompletionsWriter,
    MessagesWriter,
    PromptInfo,
    ResponsesWriter,
    TokenLogprob,
    Usage,
    Writer,
    make_writer,
    new_response_id,
)

__all__ = [
    "ChatWriter",
    "CompletionsWriter",
    "ContentPart",
    "Conversation",
    "CountCall",
    "DetokenizeCall",
    "ErrorAnswer",
    "GenerationCall",
    "GuideRequest",
    "MessagesWriter",
    "Part",
    "PromptInfo",
    "ReasoningPart",
    "ResponsesWriter",
    "TokenLogprob",
    "ToolCallPart",
    "ToolChoice",
    "Usage",
    "Writer",
    "error_body",
    "make_writer",
    "new_response_id",
    "parse_chat",
    "parse_completions",
    "parse_count_tokens",
    "parse_detokenize",
    "parse_drain",
    "parse_messages",
    "parse_profile",
    "parse_responses",
    "parse_tokenize",
]
