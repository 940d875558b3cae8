"""What the benchmarks' command lines share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from headrace.errors import ConfigError

MODEL_DIR = Path("~/.cache/headrace/bench")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def setting(text: str) -> tuple[str, Any]:
    """A name and a value from NAME=VALUE, the value as JSON or, where it is none, as text. Raises ConfigError."""
    name, equals, value = text.partition("=")
    if not (equals and name):
        raise ConfigError(f"--set {text!r} is not OPTION=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
