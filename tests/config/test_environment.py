"""What the environment says of settings: names, aliases, and what is refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from headrace.config import EngineConfig, ServerConfig
from headrace.config.environment import ALIASES, read_settings_environment
from headrace.config.fields import FieldKind, attribute_docs, field_kinds, kind_of
from headrace.config.sources import SETTINGS_CLASSES, merge
from headrace.errors import ConfigError

SAMPLES = {bool: ("true", True), int: ("4", 4), float: ("0.5", 0.5), str: ("text", "text")}


@pytest.mark.parametrize("cls", SETTINGS_CLASSES)
def test_every_setting_has_its_variable(cls: type[Any]) -> None:
    for name, kind in field_kinds(cls).items():
        text, value = SAMPLES[kind.scalar]
        setting = merge(environ={f"HEADRACE_{name.upper()}": text}).settings[name]
        assert setting.value == ((value,) if kind.several else value)
        assert setting.source == f"environment HEADRACE_{name.upper()}"


@pytest.mark.parametrize("cls", SETTINGS_CLASSES)
def test_every_setting_says_what_it_is(cls: type[Any]) -> None:
    assert list(attribute_docs(cls)) == [field.name for field in fields(cls)]


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_the_other_names(alias: str, name: str) -> None:
    kind = get_type_hints(EngineConfig)[name]
    text, value = ("0.25", 0.25) if kind is float else ("1", True) if kind == (bool | None) else ("64", 64)
    setting = merge(environ={alias: text}).settings[name]
    assert (setting.value, setting.source) == (value, f"environment {alias}")
    both = merge(environ={f"HEADRACE_{name.upper()}": text, alias: "1"}).settings[name]
    assert both.source == f"environment HEADRACE_{name.upper()}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("HEADRACE_NUM_BLOCK", "3", "there is no HEADRACE_NUM_BLOCK; did you mean HEADRACE_NUM_BLOCKS"),
        ("HEADRACE_MAX_BATCH_TOKENS", "3", "did you mean HEADRACE_MAX_NUM_BATCHED_TOKENS"),
        ("HEADRACE_NUM_BLOCKS", "many", "environment HEADRACE_NUM_BLOCKS: 'many' is not an integer, or none"),
        ("NUM_BLOCKS", "1.5", "environment NUM_BLOCKS: '1.5' is not an integer, or none"),
        ("HEADRACE_SURGERY", "perhaps", "'perhaps' is not true or false"),
        ("HEADRACE_PRESET", "latensy", "did you mean 'latency'"),
        ("USE_CUDA_GRAPH", "maybe", "environment USE_CUDA_GRAPH: 'maybe' is not true or false, or none"),
    ],
)
def test_what_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        merge(environ={name: text})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "environ",
    [
        {"USE_CUDA_GRAPH": " ", "HEADRACE_USE_CUDA_GRAPH": ""},
        {"HEADRACE_NUM_BLOCKS": "", "NUM_BLOCKS": " "},
        {"PATH": "/bin", "OTHER_NUM_BLOCKS": "x", "headrace_port": "x"},
        {
            "HEADRACE_SERVICE_HOST": "10.0.0.1",
            "HEADRACE_SERVICE_PORT": "8000",
            "HEADRACE_SERVICE_PORT_HTTP": "8000",
            "HEADRACE_PORT": "tcp://10.0.0.1:8000",
            "HEADRACE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            "HEADRACE_PORT_8000_TCP_ADDR": "10.0.0.1",
            "HEADRACE_ROUTER_SERVICE_HOST": "10.0.0.2",
            "HEADRACE_ROUTER_PORT": "tcp://10.0.0.2:80",
        },
    ],
    ids=["nothing of graphs", "empty", "others'", "a Kubernetes service called headrace"],
)
def test_what_says_nothing(environ: dict[str, str]) -> None:
    assert {setting.source for setting in merge(environ=environ).settings.values()} == {"default"}


def test_lists_are_divided_by_commas_and_none_is_none() -> None:
    settings = merge(environ={"HEADRACE_SERVED_MODEL_NAME": "a, b,,c", "HEADRACE_QUEUE_TIMEOUT_S": "None"})
    assert settings.server.served_model_name == ("a", "b", "c")
    assert settings.server.queue_timeout_s is None


def test_aliases_are_only_for_settings_that_are_asked_for() -> None:
    assert read_settings_environment(["block_size"], {"NUM_BLOCKS": "x"}).variables == {}


def test_a_type_that_no_source_can_give() -> None:
    assert kind_of(int | None) == FieldKind(int, optional=True)
    for hint in (dict[str, int], int | str, tuple[bytes, ...], ServerConfig):
        with pytest.raises(TypeError, match="no type of a setting"):
            kind_of(hint)
