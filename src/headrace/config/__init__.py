"""Typed, frozen settings."""

from headrace.config.engine import EngineConfig
from headrace.config.server import ServerConfig

__all__ = ["EngineConfig", "ServerConfig"]
