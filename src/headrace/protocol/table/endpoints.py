"""The endpoints, and the fields of the bodies they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headrace.protocol.fields import Object
from headrace.protocol.table.anthropic import COUNT_TOKENS, MESSAGES
from headrace.protocol.table.openai import CHAT, COMPLETIONS
from headrace.protocol.table.responses import RESPONSES
from headrace.protocol.table.tokens import DETOKENIZE, DRAIN, PROFILE, TOKENIZE

Style = Literal["openai", "anthropic"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route.

    Attributes:
        name: of it here. method, path: on the wire; `{…}` is a parameter.
        summary: what it does.
        body: fields that it takes; None: there is no body.
        answers: statuses, each with the media type of what it answers.
        style: of its errors. streams: it may answer with server-sent events. admin: it needs the role admin.
        open: it needs no key.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    summary: str
    body: Object | None = None
    answers: tuple[tuple[int, str], ...] = ((200, "application/json"),)
    style: Style = "openai"
    streams: bool = False
    admin: bool = False
    open: bool = False


_PROBE = ((200, "application/json"), (503, "application/json"))
_TEXT = ((200, "text/plain"),)
_STARTED = ((202, "application/json"),)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("chat", "POST", "/v1/chat/completions", "Answer a conversation (OpenAI).", CHAT, streams=True),
    Endpoint("completions", "POST", "/v1/completions", "Write on from a prompt (OpenAI).", COMPLETIONS, streams=True),
    Endpoint(
        "responses", "POST", "/v1/responses", "Answer a conversation (OpenAI), stateless.", RESPONSES, streams=True
    ),
    Endpoint(
        "messages",
        "POST",
        "/v1/messages",
        "Answer a conversation (Anthropic).",
        MESSAGES,
        style="anthropic",
        streams=True,
    ),
    Endpoint(
        "count_tokens",
        "POST",
        "/v1/messages/count_tokens",
        "Tokens of a conversation (Anthropic).",
        COUNT_TOKENS,
        style="anthropic",
    ),
    Endpoint("models", "GET", "/v1/models", "The models served."),
    Endpoint("model", "GET", "/v1/models/{id}", "One model."),
    Endpoint("tokenize", "POST", "/tokenize", "Token ids of a text or a conversation.", TOKENIZE),
    Endpoint("detokenize", "POST", "/detokenize", "Text of token ids.", DETOKENIZE),
    Endpoint("health", "GET", "/health", "As /health/ready.", answers=_PROBE, open=True),
    Endpoint("health_live", "GET", "/health/live", "Whether the process answers.", open=True),
    Endpoint("health_ready", "GET", "/health/ready", "Whether a token could be made now.", answers=_PROBE, open=True),
    Endpoint("version", "GET", "/version", "Versions of headrace and what it runs on.", open=True),
    Endpoint("load", "GET", "/load", "Queued and running requests and tokens, and cache use."),
    Endpoint("metrics", "GET", "/metrics", "Metrics in Prometheus' text form.", answers=_TEXT),
    Endpoint("openapi", "GET", "/openapi.json", "This interface as OpenAPI 3.1.", open=True),
    Endpoint("admin_state", "GET", "/admin/state", "What the engine does now.", admin=True),
    Endpoint("admin_integrity", "GET", "/admin/integrity", "Whether the cache's invariants hold.", admin=True),
    Endpoint(
        "admin_drain", "POST", "/admin/drain", "Take no new work, finish the rest.", DRAIN, answers=_STARTED, admin=True
    ),
    Endpoint("admin_profile", "POST", "/admin/profile", "Record the engine's steps for a while.", PROFILE, admin=True),
)
