"""The HTTP application of one engine, as ASGI: every route of the interface, and what is the same for all of them.

::

    Application ─ request id, errors, log line ─► (CORS) ─► route ─► authentication ─► endpoint
                                                                       Backend ◄── generation
                                                                       Panel   ◄── everything else
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from headrace.config.server import ServerConfig
from headrace.engine.remote import EngineLink
from headrace.errors import EngineStopped, HeadraceError, MethodNotAllowed, ServerDraining
from headrace.observability.metrics import ServerMetrics
from headrace.observability.request_log import log_request
from headrace.observability.request_record import RequestRecord
from headrace.protocol.call import GenerationCall
from headrace.protocol.parse import parse_chat, parse_completions, parse_messages, parse_responses
from headrace.protocol.table.endpoints import ENDPOINTS
from headrace.server.auth import Authenticator
from headrace.server.backend import Backend, Tools
from headrace.server.body import read_body
from headrace.server.disconnect import ClientGone, ended_with_client
from headrace.server.exchange import Exchange, Receive, Scope, Send
from headrace.server.health import Readiness
from headrace.server.load import load_header
from headrace.server.overload import WaitingLine
from headrace.server.panel import Panel
from headrace.server.request_ids import request_id_of
from headrace.server.routes import Routes
from headrace.server.streams import StreamLimit

_log = logging.getLogger(__name__)

_PARSERS: dict[str, Callable[..., GenerationCall]] = {
    "chat": parse_chat,
    "completions": parse_completions,
    "messages": parse_messages,
    "responses": parse_responses,
}
_THREADED_BODY_BYTES = 64 << 10
_MAX_HEADER_BYTES = 1024
_QUIET = frozenset({"health", "health_live", "health_ready", "metrics", "load", "version"})
"""Asked every few seconds by machines; their lines would bury the others."""


class Application:
    """The ASGI application.

    Args:
        config: of the server. engine: whatever its state. authenticator: tells who asks.
        line: lets requests in. metrics: count them. readiness: says whether a token could be made.
        drain: begins to drain, with a deadline in seconds, or the configured one. tools: clocks and chance.

    Attributes:
        backend: None until the model is loaded; generation is answered with 503 until then.
        num_active: generation calls under way.
    """

    def __init__(
        self,
        config: ServerConfig,
        engine: EngineLink,
        authenticator: Authenticator,
        line: WaitingLine,
        metrics: ServerMetrics,
        readiness: Readiness,
        drain: Callable[[float | None], None],
        tools: Tools,
    ) -> None:
        """Serves at once; what needs the model says that it is not there yet."""
        self.config = config
        self.engine = engine
        self.line = line
        self.metrics = metrics
        self.readiness = readiness
        self.backend: Backend | None = None
        self.num_active = 0
        self.tools = tools
        self._authenticator = authenticator
        self._streams = StreamLimit(config.max_streams_per_key)
        self._routes = Routes(ENDPOINTS)
        self._panel = Panel(self, drain)
        self._inner = self._with_cors(self._serve)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; never raises."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, "", self.tools.clock())
        given = exchange.headers.get("x-request-id")
        exchange.request_id = request_id_of(given, self.tools.random_bits)
        scope["headrace"] = exchange

        async def send_marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._marks(exchange)]
            await send(message)

        try:
            await self._inner(scope, receive, send_marked)
        finally:
            self._record(exchange)

    def _marks(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """Headers of every answer."""
        marks = [
            (b"x-request-id", exchange.request_id.encode()),
            (b"x-headrace-load", load_header(self.engine, self.line)),
        ]
        if exchange.closes or self.readiness.is_draining:
            marks.append((b"connection", b"close"))
        return marks

    def _with_cors(self, serve: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Any:
        if not self.config.cors_origins:
            return serve
        from starlette.middleware.cors import CORSMiddleware

        return CORSMiddleware(
            serve,
            allow_origins=self.config.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("x-request-id", "x-headrace-load", "x-ignored-fields", "retry-after"),
        )

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["headrace"]
        exchange.send = send
        try:
            await self._dispatch(exchange)
        except ClientGone:
            exchange.outcome.error_code = "client_gone"
        except Exception as error:
            await self._answer_error(exchange, error)

    async def _dispatch(self, exchange: Exchange) -> None:
        path = exchange.scope["path"]
        exchange.endpoint, parameter = self._routes.find(exchange.scope["method"], path)
        if not exchange.endpoint.open:
            exchange.identity = self._authenticator.authenticate(exchange.headers)
            if exchange.endpoint.admin:
                exchange.identity.require_admin()
        parse = _PARSERS.get(exchange.endpoint.name)
        if parse is None:
            await self._panel.serve(exchange.endpoint.name, parameter, exchange)
        else:
            await self._generate(parse, exchange)

    async def _generate(self, parse: Callable[..., GenerationCall], exchange: Exchange) -> None:
        exchange.outcome.is_generation = True
        backend = self.serving_backend()
        assert exchange.identity is not None
        with self._streams.hold(exchange.identity.key_id):
            self.num_active += 1
            try:
                body = await self.read_body(exchange)
                async with ended_with_client(exchange.receive):
                    call = await self.parsed(backend, body, parse, exchange)
                    exchange.outcome.model = call.model or backend.names[0]
                    await backend.generate(call, exchange)
            finally:
                self.num_active -= 1

    def serving_backend(self) -> Backend:
        """What serves requests that need the model.

        Raises:
            ServerDraining, EngineStopped: not now.
        """
        if self.readiness.is_draining:
            raise ServerDraining("this server is shutting down and takes no new work", self.config.drain_timeout_s)
        if self.backend is None:
            error = EngineStopped(f"this server cannot answer yet: {self.readiness.reason()}")
            error.retry_after_s = 2.0
            raise error
        return self.backend

    async def read_body(self, exchange: Exchange) -> bytes:
        """The body of a request, within the limits; counts the request as received."""
        try:
            body = await read_body(exchange.receive, exchange.headers, self.config.max_body_bytes)
        except HeadraceError:
            exchange.closes = self._is_hopeless(exchange)
            raise
        self.metrics.request_received(exchange.route)
        return body

    def _is_hopeless(self, exchange: Exchange) -> bool:
        """Whether to hang up on a refused client. Others may finish their body: only then they read the answer."""
        announced = exchange.headers.get("content-length", "")
        return announced.isdecimal() and int(announced) > 8 * self.config.max_body_bytes

    async def parsed(self, backend: Backend, body: bytes, parse: Callable[..., Any], exchange: Exchange) -> Any:
        """A body as a call; names the fields that were ignored in the answer's head."""
        strict = self.config.strict_fields
        if len(body) <= _THREADED_BODY_BYTES:
            call = parse(body, strict=strict)
        else:
            call = await backend.encoder.in_thread(lambda: parse(body, strict=strict))
        ignored = call.ignored_fields + backend.without_effect(call)
        if ignored:
            self.metrics.ignored_fields(len(ignored))
            exchange.extra_headers.append((b"x-ignored-fields", _header_value(ignored)))
        return call

    async def _answer_error(self, exchange: Exchange, error: Exception) -> None:
        exchange.outcome.error_code = error.code if isinstance(error, HeadraceError) else "internal_error"
        if not isinstance(error, HeadraceError):
            _log.exception("request %s failed", exchange.request_id)
        if exchange.status is not None:
            # Bytes were sent, and no writer could say what went wrong: only a broken connection does.
            raise error
        if isinstance(error, MethodNotAllowed):
            exchange.extra_headers.append((b"allow", self._routes.methods(exchange.scope["path"]).encode()))
        if exchange.outcome.is_generation:
            self.metrics.request_rejected(error if isinstance(error, HeadraceError) else HeadraceError())
        await exchange.answer_error(error)

    def _record(self, exchange: Exchange) -> None:
        outcome = exchange.outcome
        record = RequestRecord(
            request_id=exchange.request_id,
            endpoint=exchange.route,
            model=outcome.model,
            identity="" if exchange.identity is None else exchange.identity.name,
            status=499 if exchange.status is None else exchange.status,
            e2e_s=self.tools.clock() - exchange.started_s,
            finish_reasons=outcome.finish_reasons,
            error_code=outcome.error_code,
            num_prompt_tokens=outcome.num_prompt_tokens,
            num_cached_tokens=outcome.num_cached_tokens,
            num_output_tokens=outcome.num_output_tokens,
            queued_s=outcome.queued_s,
            prefill_s=outcome.prefill_s,
            ttft_s=outcome.ttft_s,
        )
        self.metrics.http_response(exchange.route, record.status)
        if outcome.finish_reasons:
            self.metrics.request_finished(record)
        if exchange.endpoint is None or exchange.endpoint.name not in _QUIET:
            log_request(record)


def _header_value(names: tuple[str, ...]) -> bytes:
    """Names as a header may carry them: a client can call a field anything."""
    shown = ",".join(name.encode("ascii", "backslashreplace").decode() for name in names)
    return "".join(c if c.isprintable() else "?" for c in shown)[:_MAX_HEADER_BYTES].encode("ascii")
