"""The arguments that every command which runs a model has in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli.field_flags import add_field_flags, given_fields
from headrace.config import EngineConfig, ServerConfig
from headrace.config.presets import PRESETS
from headrace.config.sources import Settings, merge
from headrace.engine.sampling_params import SamplingParams

if TYPE_CHECKING:
    from headrace import LLM

_ALIASES = {"attn_implementation": ("--attention",)}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, its tokenizer, and how both are loaded."""
    parser.add_argument("model", metavar="MODEL", help="a folder, a hub id, or `builtin`")
    parser.add_argument("--tokenizer", metavar="NAME", help="folder or hub id of the tokenizer (default: the model's)")
    add_loading_arguments(parser)


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """What a hub id needs besides its name."""
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with the model (default: off)"
    )


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for each engine setting, and for the settings' other sources."""
    add_sources(parser)
    add_field_flags(parser.add_argument_group("engine"), EngineConfig, _ALIASES)


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting of engine and server, and for the settings' other sources."""
    add_sources(parser)
    add_field_flags(parser.add_argument_group("server"), ServerConfig)
    both = {field.name for field in fields(EngineConfig)} & {field.name for field in fields(ServerConfig)}
    add_field_flags(parser.add_argument_group("engine"), EngineConfig, _ALIASES, without=both)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Flags for a settings file and a preset."""
    group = parser.add_argument_group("settings", "default < preset < file < environment HEADRACE_<NAME> < flag")
    group.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML or YAML (or: HEADRACE_CONFIG)")
    group.add_argument(
        "--preset", choices=list(PRESETS), help="settings that belong together (or: HEADRACE_PRESET, or in the file)"
    )


def settings_of(arguments: argparse.Namespace, kinds: Sequence[type[Any]] = (EngineConfig,)) -> Settings:
    """The settings of the classes `kinds`, from flags, environment, file and preset. Raises ConfigError."""
    flags = {name: value for kind in kinds for name, value in given_fields(arguments, kind).items()}
    return merge(kinds, flags=flags, file=arguments.config, preset=arguments.preset)


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for each sampling parameter."""
    add_field_flags(
        parser.add_argument_group("sampling", "what the model's generation config names goes before these defaults"),
        SamplingParams,
        without=("guide",),  # a grammar is no matter of one flag
    )


def open_llm(arguments: argparse.Namespace) -> LLM:
    """Load the model that the arguments name.

    Raises:
        ConfigError: a setting is out of its range.
        ModelNotSupported: the model cannot run here.
    """
    config = settings_of(arguments).engine  # complains before seconds of importing and loading
    from transformers.utils import logging

    from headrace import LLM

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    return LLM(
        arguments.model,
        tokenizer=arguments.tokenizer,
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
        **{field.name: getattr(config, field.name) for field in fields(config)},
    )


def sampling_params(arguments: argparse.Namespace, defaults: SamplingParams | None = None) -> SamplingParams:
    """The sampling parameters that the arguments ask for, over the model's `defaults`; raises InvalidParameter."""
    return replace(defaults or SamplingParams(), **given_fields(arguments, SamplingParams))
