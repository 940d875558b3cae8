"""Presets hold settings that exist, are allowed, and differ from the defaults."""

from __future__ import annotations

import pytest

from headrace.config import EngineConfig, ServerConfig
from headrace.config.presets import PRESETS
from headrace.config.sources import merge


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_whole(name: str) -> None:
    settings = merge(environ={}, preset=name)
    assert settings.engine and settings.server
    preset = PRESETS[name]
    for values, defaults in ((preset.engine, EngineConfig()), (preset.server, ServerConfig())):
        for field, (value, reason) in values.items():
            assert settings.settings[field].source == f"preset {name}"
            assert settings.settings[field].value == value != getattr(defaults, field)
            assert len(reason) > 15


def test_presets_differ_in_what_they_are_for() -> None:
    latency, throughput, laptop = (merge(environ={}, preset=name) for name in ("latency", "throughput", "laptop"))
    steps = [s.engine.max_num_batched_tokens for s in (latency, throughput)]
    assert steps[0] < steps[1]
    assert latency.server.queue_timeout_s < throughput.server.queue_timeout_s
    assert laptop.engine.max_memory_percent < EngineConfig().max_memory_percent
