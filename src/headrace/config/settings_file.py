"""Reads a settings file: TOML or YAML, one flat table of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.errors import ConfigError


def read_settings_file(path: Path) -> dict[str, Any]:
    """The top-level keys of a file. Raises ConfigError that says where it cannot be read."""
    readers = {".toml": _read_toml, ".yaml": _read_yaml, ".yml": _read_yaml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"file {path}: its name must end in {', '.join(readers)}")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"file {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"file {path}: {error}") from error
    try:
        return reader(text)
    except ValueError as error:
        raise ConfigError(f"file {path}: {error}") from error


def _read_toml(text: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(text)


def _read_yaml(text: str) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError(f"settings (name: value) are needed, not {type(document).__name__}")
    _check_no_repeats(yaml, text)
    return document


def _check_no_repeats(yaml: Any, text: str) -> None:
    """YAML keeps the last of two equal keys without a word; TOML refuses them, as this does."""
    seen = set()
    for key, _ in yaml.compose(text, Loader=yaml.SafeLoader).value:
        if key.value in seen:
            raise ValueError(f"{key.value!r} stands there twice, again in line {key.start_mark.line + 1}")
        seen.add(key.value)
