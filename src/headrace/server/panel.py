"""The endpoints that generate nothing: what is served, how it goes, and what an administrator may do."""

from __future__ import annotations

import asyncio
import platform
import tempfile
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from headrace import __version__
from headrace.errors import ModelNotFound, RequestFailed
from headrace.protocol.call import Conversation, CountCall, DetokenizeCall
from headrace.protocol.parse import (
    parse_count_tokens,
    parse_detokenize,
    parse_drain,
    parse_profile,
    parse_tokenize,
)
from headrace.server.disconnect import ended_with_client
from headrace.server.exchange import Exchange
from headrace.server.load import load_report
from headrace.server.prompts import num_characters

if TYPE_CHECKING:
    from headrace.server.app import Application
    from headrace.server.backend import Backend

_PROFILE_MARGIN_S = 30.0
_MAX_PROFILED_STEPS = 100_000


class Panel:
    """Serves the endpoints by name.

    Args:
        app: whose. drain: begins to drain, with a deadline in seconds, or the configured one.
    """

    def __init__(self, app: Application, drain: Callable[[float | None], None]) -> None:
        """Ready."""
        self._app = app
        self._drain = drain
        self._openapi: dict[str, Any] | None = None
        self._endpoints: dict[str, Callable[[str, Exchange], Awaitable[None]]] = {
            "count_tokens": self._count_tokens,
            "models": self._models,
            "model": self._model,
            "tokenize": self._tokenize,
            "detokenize": self._detokenize,
            "health": self._ready,
            "health_live": self._live,
            "health_ready": self._ready,
            "version": self._version,
            "load": self._load,
            "metrics": self._metrics,
            "openapi": self._document,
            "admin_state": self._state,
            "admin_integrity": self._integrity,
            "admin_drain": self._begin_drain,
            "admin_profile": self._profile,
        }

    async def serve(self, name: str, parameter: str, exchange: Exchange) -> None:
        """Answer; `parameter` is of the path."""
        await self._endpoints[name](parameter, exchange)

    # ---------------------------------------------------------------- models and tokens

    async def _models(self, _: str, exchange: Exchange) -> None:
        backend = self._app.backend
        models = [] if backend is None else [_model_card(name, backend) for name in backend.names]
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
        await exchange.answer_json({"object": "list", "data": models, "has_more": False} | ends)

    async def _model(self, name: str, exchange: Exchange) -> None:
        backend = self._app.backend
        if backend is None:
            raise ModelNotFound(f"no model is loaded yet: {self._app.readiness.reason()}")
        backend.check_model(name)
        await exchange.answer_json(_model_card(name, backend))

    async def _count(self, parse: Callable[..., CountCall], exchange: Exchange) -> tuple[CountCall, list[int]]:
        backend = self._app.serving_backend()
        body = await self._app.read_body(exchange)
        async with ended_with_client(exchange.receive):
            call: CountCall = await self._app.parsed(backend, body, parse, exchange)
            backend.check_model(call.model)
            prompt = call.prompt
            size = num_characters((prompt.messages, prompt.tools) if isinstance(prompt, Conversation) else prompt)
            return call, await backend.encoder.in_time(size, lambda: _ids(backend, call))

    async def _count_tokens(self, _: str, exchange: Exchange) -> None:
        ids = (await self._count(parse_count_tokens, exchange))[1]
        await exchange.answer_json({"input_tokens": len(ids)})

    async def _tokenize(self, _: str, exchange: Exchange) -> None:
        call, ids = await self._count(parse_tokenize, exchange)
        backend = self._app.serving_backend()
        answer: dict[str, Any] = {"count": len(ids), "max_model_len": backend.info.max_model_len, "tokens": ids}
        if call.return_token_strs:
            answer["token_strs"] = backend.tokenizer.inner.convert_ids_to_tokens(ids)
        await exchange.answer_json(answer)

    async def _detokenize(self, _: str, exchange: Exchange) -> None:
        backend = self._app.serving_backend()
        body = await self._app.read_body(exchange)
        async with ended_with_client(exchange.receive):
            call: DetokenizeCall = await self._app.parsed(backend, body, parse_detokenize, exchange)
            backend.check_model(call.model)
            backend.encoder.check_range(call.tokens)
            text = await backend.encoder.in_time(
                4 * len(call.tokens), lambda: backend.tokenizer.decode(call.tokens, skip_special_tokens=False)
            )
        await exchange.answer_json({"prompt": text})

    # ---------------------------------------------------------------- how it goes

    async def _live(self, _: str, exchange: Exchange) -> None:
        await exchange.answer_json({"status": "alive"})

    async def _ready(self, _: str, exchange: Exchange) -> None:
        reason = self._app.readiness.reason()
        answer = {"status": "ready" if reason is None else "not ready", "engine": self._app.engine.state}
        if reason is None:
            await exchange.answer_json(answer)
        else:
            await exchange.answer_json(answer | {"reason": reason}, 503, (b"retry-after", b"1"))

    async def _version(self, _: str, exchange: Exchange) -> None:
        await exchange.answer_json(
            {
                "version": __version__,
                "python": platform.python_version(),
                "transformers": _version_of("transformers"),
                "torch": _version_of("torch"),
            }
        )

    async def _load(self, _: str, exchange: Exchange) -> None:
        await exchange.answer_json(load_report(self._app.engine, self._app.line))

    async def _metrics(self, _: str, exchange: Exchange) -> None:
        data, content_type = self._app.metrics.render(exchange.headers.get("accept", ""))
        await exchange.answer(200, data, content_type.encode())

    async def _document(self, _: str, exchange: Exchange) -> None:
        if self._openapi is None:
            from headrace.protocol.openapi import document

            self._openapi = document()
        await exchange.answer_json(self._openapi)

    # ---------------------------------------------------------------- administration

    async def _state(self, _: str, exchange: Exchange) -> None:
        app = self._app
        await exchange.answer_json(
            {
                "engine": await app.engine.call("state"),
                "server": {
                    "num_active": app.num_active,
                    "num_tasks": len(asyncio.all_tasks()),
                    "load": load_report(app.engine, app.line),
                },
            }
        )

    async def _integrity(self, _: str, exchange: Exchange) -> None:
        found = await self._app.engine.call("integrity")
        await exchange.answer_json({"ok": not found["problems"], **found}, 200 if not found["problems"] else 500)

    async def _begin_drain(self, _: str, exchange: Exchange) -> None:
        deadline_s = parse_drain(await self._app.read_body(exchange))
        self._drain(deadline_s)
        await exchange.answer_json({"draining": True, "num_active": self._app.num_active}, 202)

    async def _profile(self, _: str, exchange: Exchange) -> None:
        duration_s = parse_profile(await self._app.read_body(exchange))
        try:
            folder = tempfile.mkdtemp(prefix="headrace-profile-")
        except OSError as error:
            raise RequestFailed(f"there is no folder that a profile could be written to: {error}") from error
        found = await self._app.engine.call(
            "profile",
            timeout_s=duration_s + _PROFILE_MARGIN_S,
            num_steps=_MAX_PROFILED_STEPS,
            max_s=duration_s,
            folder=folder,
        )
        await exchange.answer_json(found)


def _ids(backend: Backend, call: CountCall) -> list[int]:
    if isinstance(call.prompt, Conversation):
        text = backend.encoder.render_conversation(call.prompt)
        return backend.tokenizer.encode(text, add_special_tokens=False)
    return backend.tokenizer.encode(call.prompt, add_special_tokens=call.add_special_tokens)


def _model_card(name: str, backend: Backend) -> dict[str, Any]:
    """One model, with what OpenAI's clients read and what Anthropic's do."""
    return {
        "id": name,
        "object": "model",
        "created": backend.created,
        "owned_by": "headrace",
        "root": backend.info.model_name,
        "max_model_len": backend.info.max_model_len,
        "type": "model",
        "display_name": name,
        "created_at": backend.created_at,
    }


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
