"""Which engines take part, from which interpreters and with which options: what the command line says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.bench.arguments import setting
from headrace.bench.engines import ENGINES, EngineSpec, engine
from headrace.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine, or with a variant ("headrace:int8") the same engine with other options."""

    spec: EngineSpec
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Entry:
        """From ENGINE or ENGINE:VARIANT. Raises ConfigError for an engine that does not exist."""
        name, _, variant = text.partition(":")
        return cls(engine(name), variant)

    @property
    def name(self) -> str:
        """As it was written."""
        return f"{self.spec.name}:{self.variant}" if self.variant else self.spec.name


def choose(wanted: list[str] | None, pythons: Mapping[str, Path]) -> tuple[list[Entry], dict[str, str]]:
    """Those that can run, and the others with the reason why not. Raises ConfigError when none is left."""
    chosen, left_out = [], {}
    for entry in map(Entry.parse, ENGINES if wanted is None else wanted):
        package = entry.spec.package
        if entry in chosen:
            raise ConfigError(f"{entry.name} is there twice; tell them apart as {entry.name}:a and {entry.name}:b")
        if package is None or entry.spec.name in pythons:
            chosen.append(entry)
        else:
            reason = f"no interpreter given; pip install {package} somewhere, then --python {entry.spec.name}=PATH"
            left_out[entry.name] = reason
    if not chosen:
        raise ConfigError("no engine is left to run: " + "; ".join(left_out.values()))
    return chosen, left_out


def interpreters(pairs: Iterable[str]) -> dict[str, Path]:
    """By engine, from ENGINE=PATH; all variants of an engine share one. Raises ConfigError."""
    pythons = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals:
            raise ConfigError(f"--python {pair!r} is not ENGINE=PATH")
        pythons[engine(name).name] = Path(path).expanduser()
    return pythons


def options(settings: Iterable[str], entries: Iterable[Entry]) -> dict[Entry, dict[str, Any]]:
    """Options of each entry, from ENGINE.OPTION=VALUE (all its variants) and ENGINE:VARIANT.OPTION=VALUE.

    Raises ConfigError for what is no such text, and for one that is meant for nobody who takes part.
    """
    found: dict[Entry, dict[str, Any]] = {entry: {} for entry in entries}
    parsed = [_setting(text) for text in settings]
    for target, option, value in sorted(parsed, key=lambda setting: bool(setting[0].variant)):
        meant = [entry for entry in found if entry.spec == target.spec and target.variant in ("", entry.variant)]
        if target.variant and not meant:
            raise ConfigError(f"--set {target.name}.{option}: {target.name} does not take part")
        for entry in meant:
            found[entry][option] = value
    return found


def _setting(text: str) -> tuple[Entry, str, Any]:
    head, equals, value = text.partition("=")
    name, dot, option = head.partition(".")
    if not (equals and dot and option):
        raise ConfigError(f"--set {text!r} is not ENGINE.OPTION=VALUE")
    return Entry.parse(name), *setting(f"{option}={value}")
