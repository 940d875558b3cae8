"""Model shapes by name. Speed depends on a model's shape, not on what it has learnt, so random weights will do."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headrace.errors import ConfigError, HeadraceError

DTYPES = ("float32", "bfloat16")

_LAYOUT_VERSION = 1
"""Raised when `checkpoint.py` makes other files from the same shape: folders made before are not used again."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A transformers configuration by name.

    Attributes:
        model_type: of transformers' configuration class.
        config: its keyword arguments, as far as they are not the defaults.
    """

    name: str
    description: str
    model_type: str
    config: Mapping[str, Any] = field(hash=False)

    @property
    def fingerprint(self) -> str:
        """Names the checkpoint that this shape makes."""
        text = json.dumps([_LAYOUT_VERSION, self.model_type, dict(self.config)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def _llama(name: str, description: str, **config: Any) -> Shape:
    defaults = {"vocab_size": 32_000, "max_position_embeddings": 4096, "tie_word_embeddings": False}
    return Shape(name, description, "llama", defaults | config)


def _qwen3(name: str, description: str, **config: Any) -> Shape:
    defaults = {
        "vocab_size": 151_936,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    }
    return Shape(name, description, "qwen3", defaults | config)


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        shape.name: shape
        for shape in (
            _llama(
                "XS",
                "4.2M parameters: to try the benchmark itself",
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=32,
            ),
            _llama(
                "S",
                "61M parameters, llama: 8 layers of 512, 8 heads, 4 of keys and values",
                hidden_size=512,
                intermediate_size=1792,
                num_hidden_layers=8,
                num_attention_heads=8,
                num_key_value_heads=4,
                head_dim=64,
            ),
            _qwen3(
                "M",
                "596M parameters, Qwen3-0.6B: 28 layers of 1024, 16 heads, 8 of keys and values",
                hidden_size=1024,
                intermediate_size=3072,
                num_hidden_layers=28,
                num_attention_heads=16,
                tie_word_embeddings=True,
            ),
            _qwen3(
                "L",
                "8.2B parameters, Qwen3-8B: 36 layers of 4096, 32 heads, 8 of keys and values; for GPUs",
                hidden_size=4096,
                intermediate_size=12_288,
                num_hidden_layers=36,
                num_attention_heads=32,
                tie_word_embeddings=False,
            ),
        )
    }
)


def shape(name: str) -> Shape:
    """The shape of that name. Raises ConfigError with the list of those there are."""
    if name not in SHAPES:
        raise ConfigError(f"unknown shape {name!r}; there are {', '.join(SHAPES)}")
    return SHAPES[name]


def model_folder(wanted: Shape, dtype: str, root: Path) -> Path:
    """A model folder of that shape under `root`; made on first use.

    It is made in another process, so that this one never loads torch: its threads and memory would be in the way
    of the engines that are measured.

    Raises:
        HeadraceError: it could not be made; the message ends with what the other process said last.
    """
    folder = root / f"{wanted.name}-{wanted.fingerprint}-{dtype}"
    if (folder / "config.json").exists():
        return folder
    job = {"model_type": wanted.model_type, "config": dict(wanted.config), "dtype": dtype, "folder": str(folder)}
    root.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "headrace.bench.checkpoint"], input=json.dumps(job), capture_output=True, text=True
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise HeadraceError(f"the model of shape {wanted.name} could not be made: {last}")
    return folder
