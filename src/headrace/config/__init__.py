"""Typed, frozen settings."""

from headrace.config.engine import EngineConfig
from headrace.config.gateway import GatewayConfig
from headrace.config.server import ServerConfig

__all__ = ["EngineConfig", "GatewayConfig", "ServerConfig"]
