"""Flags follow the fields of the settings classes."""

from __future__ import annotations

import argparse
from dataclasses import fields

import pytest

from headrace.cli.engine_arguments import add_engine_arguments, add_sampling_arguments, add_server_arguments
from headrace.cli.field_flags import given_fields
from headrace.config import EngineConfig, ServerConfig
from headrace.engine.sampling_params import SamplingParams


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(allow_abbrev=False)
    add_engine_arguments(made)
    add_sampling_arguments(made)
    return made


@pytest.mark.parametrize("settings", [EngineConfig, SamplingParams])
def test_every_field_is_a_flag_with_help(settings: type) -> None:
    actions = {action.dest: action for action in parser()._actions}
    for field in fields(settings):
        if field.name == "guide":
            continue
        action = actions[field.name]
        assert "--" + field.name.replace("_", "-") in action.option_strings
        assert len(action.help or "") > 10, f"the docstring of {settings.__name__} says nothing of {field.name}"


def test_what_is_not_given_leaves_no_trace() -> None:
    arguments = parser().parse_args([])
    assert given_fields(arguments, EngineConfig) == {}
    assert given_fields(arguments, SamplingParams) == {}


def test_every_type_of_field() -> None:
    line = (
        "--attention torch --max-queue-size 7 --no-enable-prefix-caching --max-memory-percent 0.5 --max-tokens none "
        "--stop a --stop b --stop-token-ids 4 --stop-token-ids 5 --logit-bias 3=-1.5 --logit-bias 4=2 --seed -9"
    )
    arguments = parser().parse_args(line.split())
    config = EngineConfig(**given_fields(arguments, EngineConfig))
    assert (config.attn_implementation, config.max_queue_size, config.enable_prefix_caching) == ("torch", 7, False)
    assert config.max_memory_percent == 0.5
    params = SamplingParams(**given_fields(arguments, SamplingParams))
    assert (params.max_tokens, params.stop, params.stop_token_ids, params.seed) == (None, ("a", "b"), (4, 5), -9)
    assert dict(params.logit_bias) == {3: -1.5, 4: 2.0}


@pytest.mark.parametrize("line", ["--max-tokens x", "--logit-bias 3", "--logit-bias a=1", "--nothing 1"])
def test_what_cannot_be_read(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(line.split())
    assert stopped.value.code == 2
    assert line.split()[0] in capsys.readouterr().err


def test_a_field_that_begins_with_no_is_turned_on_by_its_flag() -> None:
    made = argparse.ArgumentParser(allow_abbrev=False)
    add_server_arguments(made)
    assert given_fields(made.parse_args(["--no-auth"]), ServerConfig) == {"no_auth": True}
    assert given_fields(made.parse_args(["--no-strict-fields"]), ServerConfig) == {"strict_fields": False}
