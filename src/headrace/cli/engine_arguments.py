"""The arguments that every command which runs a model has in common."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.cli.field_flags import add_field_flags, given_fields
from headrace.config import EngineConfig
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
    """A flag for each engine setting."""
    add_field_flags(parser.add_argument_group("engine"), EngineConfig, _ALIASES)


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for each sampling parameter."""
    add_field_flags(
        parser.add_argument_group("sampling", "what the model's generation config names goes before these defaults"),
        SamplingParams,
    )


def open_llm(arguments: argparse.Namespace) -> LLM:
    """Load the model that the arguments name.

    Raises:
        ConfigError: a setting is out of its range.
        ModelNotSupported: the model cannot run here.
    """
    settings = given_fields(arguments, EngineConfig)
    EngineConfig(**settings)  # complains before seconds of importing and loading
    from transformers.utils import logging

    from headrace import LLM

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    return LLM(
        arguments.model,
        tokenizer=arguments.tokenizer,
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
        **settings,
    )


def sampling_params(arguments: argparse.Namespace, defaults: SamplingParams | None = None) -> SamplingParams:
    """The sampling parameters that the arguments ask for, over the model's `defaults`; raises InvalidParameter."""
    return replace(defaults or SamplingParams(), **given_fields(arguments, SamplingParams))
