"""Presets: settings that belong together, each with its reason. They lie underneath the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from headrace.config.nearest import nearest
from headrace.errors import ConfigError


class PresetValue(NamedTuple):
    """A setting's value in a preset, and why."""

    value: int | float | str | bool
    reason: str


@dataclass(frozen=True, slots=True)
class Preset:
    """What a preset is for, and its values for EngineConfig and ServerConfig."""

    summary: str
    engine: Mapping[str, PresetValue]
    server: Mapping[str, PresetValue]


PRESETS: Mapping[str, Preset] = {
    "latency": Preset(
        "a short time to the first token and an even flow of tokens, for people who read along",
        engine={
            "max_num_batched_tokens": PresetValue(
                256, "a running request waits at most for a step of 256 tokens, however long the prompts beside it are"
            ),
            "max_num_seqs": PresetValue(16, "fewer requests share a step, so each gets its tokens sooner"),
        },
        server={
            "max_queue_size": PresetValue(32, "two batches wait at most; who comes later is told at once to come back"),
            "queue_timeout_s": PresetValue(10.0, "an answer that starts later is of no use to somebody who waits"),
        },
    ),
    "throughput": Preset(
        "as many tokens in all as the machine can make, for batches and evaluations",
        engine={
            "max_num_batched_tokens": PresetValue(
                8192,
                "prompts are computed in few large steps, which read the weights less often; answers stall meanwhile",
            ),
            "max_num_seqs": PresetValue(256, "a decode step reads the weights once, whatever the number of requests"),
            "safety_margin": PresetValue(0.02, "more of the cache is used; now and then a request is computed again"),
        },
        server={
            "max_queue_size": PresetValue(8192, "a batch may be handed over whole"),
            "queue_timeout_s": PresetValue(3600.0, "nobody reads along; waiting is better than sending again"),
        },
    ),
    "laptop": Preset(
        "one person's machine, which has other things to do",
        engine={
            "max_memory_percent": PresetValue(0.25, "three quarters of the free memory stay free for everything else"),
            "max_num_seqs": PresetValue(8, "one person's requests; the step's buffers stay small"),
            "max_num_batched_tokens": PresetValue(256, "the step's buffers stay small, and tokens flow evenly"),
        },
        server={
            "max_queue_size": PresetValue(64, "a program that runs wild is stopped early"),
            "drain_timeout_s": PresetValue(5.0, "Ctrl-C ends soon"),
        },
    ),
}


def get_preset(name: str) -> Preset:
    """The preset of that name. Raises ConfigError that lists the names."""
    if name not in PRESETS:
        raise ConfigError(
            f"preset={name!r} is not one of {', '.join(PRESETS)}; did you mean {nearest(name, PRESETS)!r}?"
        )
    return PRESETS[name]
