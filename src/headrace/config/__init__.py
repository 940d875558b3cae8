"""Typed, frozen settings."""

from headrace.config.engine import EngineConfig

__all__ = ["EngineConfig"]
