"""Puts the application together."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from headrace import __version__
from headrace.config.server import ServerConfig
from headrace.engine.remote import EngineLink
from headrace.observability.metrics import ServerMetrics
from headrace.server.app import Application
from headrace.server.auth import Authenticator
from headrace.server.backend import Tools
from headrace.server.health import Readiness
from headrace.server.overload import QueueLimits, WaitingLine


def make_application(
    config: ServerConfig,
    engine: EngineLink,
    model: str,
    drain: Callable[[float | None], None],
    tools: Tools | None = None,
) -> Application:
    """The application of an engine that may not be ready yet.

    Args:
        config: of the server. engine: whatever its state. model: its name, for metrics.
        drain: begins to drain. tools: clocks and chance.

    Raises:
        ConfigError: a file of keys that cannot be used.
    """
    limits = QueueLimits(config.max_queue_size, config.max_queue_tokens, config.queue_timeout_s)
    return Application(
        config,
        engine,
        Authenticator(config),
        WaitingLine(limits),
        ServerMetrics(model, __version__, CollectorRegistry()),
        Readiness(engine),
        drain,
        Tools() if tools is None else tools,
    )
