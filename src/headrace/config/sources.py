"""One plane of settings: default < preset < file < environment < flag; each value knows where it came from.

The plane is made of settings classes. A name that two of them have is one setting: its default is the later class's,
and both get its value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from headrace.config.engine import EngineConfig
from headrace.config.environment import Variable, read_settings_environment
from headrace.config.fields import FieldKind, field_kinds, secret_fields
from headrace.config.gateway import GatewayConfig
from headrace.config.nearest import nearest
from headrace.config.presets import get_preset
from headrace.config.server import ServerConfig
from headrace.config.settings_file import read_settings_file
from headrace.errors import ConfigError

SETTINGS_CLASSES: tuple[type[Any], ...] = (EngineConfig, ServerConfig, GatewayConfig)
"""All settings that there are; a command may use a part of them."""

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it came from.

    Attributes:
        source: "default", "preset latency", "file …", "environment …" or "flag --…".
        secret: whether the value must not be shown.
    """

    name: str
    value: Any
    source: str
    secret: bool = False

    @property
    def shown(self) -> Any:
        """The value as it may be shown, ready for JSON."""
        if self.secret and self.value:
            return "(hidden)"
        return list(self.value) if isinstance(self.value, tuple) else self.value


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a command.

    Attributes:
        settings: by name, in the order of the classes' fields.
        beside: environment variables that are read elsewhere: by the CPU kernels, and by CUDA.
    """

    settings: Mapping[str, Setting]
    beside: tuple[Variable, ...] = ()

    @property
    def engine(self) -> EngineConfig:
        """The engine's part; raises ConfigError."""
        return self.build(EngineConfig)

    @property
    def server(self) -> ServerConfig:
        """The server's part; raises ConfigError."""
        return self.build(ServerConfig)

    @property
    def gateway(self) -> GatewayConfig:
        """The gateway's part; raises ConfigError."""
        return self.build(GatewayConfig)

    def build(self, kind: type[Config]) -> Config:
        """Make one of the plane's classes. Raises ConfigError that says where the values in question came from."""
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        try:
            return kind(**{name: self.settings[name].value for name in names})
        except ConfigError as error:
            mentioned = [self.settings[name] for name in names if re.search(rf"\b{name}\b", str(error))]
            origins = [f"{setting.name}: {setting.source}" for setting in mentioned if setting.source != "default"]
            raise ConfigError(f"{error} ({'; '.join(origins)})" if origins else str(error)) from error


def merge(
    kinds: Sequence[type[Any]] = SETTINGS_CLASSES,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    preset: str | None = None,
) -> Settings:
    """Merge all sources into the settings of the classes `kinds`.

    Args:
        kinds: what the caller needs of SETTINGS_CLASSES; the names of the others are known, and not used.
        flags: values by name, as the command line gave them.
        environ: None is the process's.
        file: TOML or YAML; None: what HEADRACE_CONFIG names, if it does.
        preset: its name; None: what HEADRACE_PRESET or the file's `preset` names, if they do.

    Raises:
        ConfigError: a name that there is not, with the nearest; a value of another type; a file that cannot be read.
    """
    environment = read_settings_environment(_all_names(), environ)
    if file is None and environment.file is not None:
        file = Path(environment.file.text)
    in_file = {} if file is None else _checked_file(file)
    in_file_preset = in_file.pop("preset", None)
    chosen = preset or (environment.preset.text if environment.preset else None) or in_file_preset
    values = _defaults(kinds)
    if chosen is not None:
        _put(values, _preset_values(chosen, kinds), f"preset {chosen}")
    kind_by_name = {name: kind for cls in kinds for name, kind in field_kinds(cls).items()}
    for name in in_file.keys() & values.keys():
        _put(values, {name: _from_file(name, in_file[name], kind_by_name[name], file)}, f"file {file}")
    for name, variable in environment.variables.items():
        if name in values:
            _put(values, {name: _from_text(variable, kind_by_name[name])}, f"environment {variable.name}")
    for name, value in (flags or {}).items():
        _put(values, {name: value}, f"flag --{'no-' if value is False else ''}{name.replace('_', '-')}")
    return Settings(values, environment.beside)


def _all_names() -> list[str]:
    return list(dict.fromkeys(field.name for cls in SETTINGS_CLASSES for field in fields(cls)))


def _defaults(kinds: Sequence[type[Any]]) -> dict[str, Setting]:
    values: dict[str, Setting] = {}
    for cls in kinds:
        secrets = secret_fields(cls)
        for field in fields(cls):
            values[field.name] = Setting(field.name, field.default, "default", field.name in secrets)
    return values


def _put(values: dict[str, Setting], given: Mapping[str, Any], source: str) -> None:
    for name, value in given.items():
        values[name] = Setting(name, value, source, values[name].secret)


def _preset_values(name: str, kinds: Sequence[type[Any]]) -> dict[str, Any]:
    preset = get_preset(name)
    parts = {EngineConfig: preset.engine, ServerConfig: preset.server}
    return {field: given.value for cls in kinds for field, given in parts.get(cls, {}).items()}


def _checked_file(path: Path) -> dict[str, Any]:
    """The keys of a settings file; raises ConfigError for one that there is not."""
    known = [*_all_names(), "preset"]
    in_file = read_settings_file(path)
    for name in in_file:
        if name not in known:
            hint = ": settings stand at the top, without tables" if isinstance(in_file[name], dict) else ""
            near = nearest(str(name), known)
            raise ConfigError(f"file {path}: there is no setting {name!r}{hint}; did you mean {near!r}?")
    preset = in_file.get("preset", "")
    if not isinstance(preset, str):
        raise ConfigError(f"file {path}: preset={preset!r} is not a text")
    return in_file


def _from_file(name: str, value: Any, kind: FieldKind, path: Path | None) -> Any:
    try:
        return kind.from_value(value)
    except ValueError as error:
        raise ConfigError(f"file {path}: {name}: {error}") from None


def _from_text(variable: Variable, kind: FieldKind) -> Any:
    try:
        return kind.from_text(variable.text)
    except ValueError as error:
        raise ConfigError(f"environment {variable.name}: {error}") from None


def as_file(settings: Settings, without: Collection[str], **others: Any) -> str:
    """What a settings file (.yaml, of which JSON is a part) has to say for the same settings; secrets are not hidden.

    Args:
        settings: those that are not at their defaults are written. without: names to leave out. others: further ones.
    """
    given = {s.name: s.value for s in settings.settings.values() if s.source != "default" and s.name not in without}
    return json.dumps({**given, **others}, indent=2)


def as_json(settings: Settings) -> str:
    """All settings with their sources, secrets hidden."""
    shown = {name: {"value": s.shown, "source": s.source} for name, s in settings.settings.items()}
    beside = {variable.name: variable.text for variable in settings.beside}
    return json.dumps({"settings": shown, "environment": beside}, indent=2)


def as_lines(settings: Settings) -> list[str]:
    """The same as a table for people."""
    rows = [(s.name, json.dumps(s.shown), s.source) for s in settings.settings.values()]
    rows += [(variable.name, variable.text, "environment") for variable in settings.beside]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}" for name, value, source in rows]
