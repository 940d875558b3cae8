"""One plane of settings: which source wins, what a value says of its origin, and what is refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import EngineConfig, ServerConfig
from headrace.config.sources import SETTINGS_CLASSES, Settings, as_json, as_lines, merge
from headrace.errors import ConfigError

NAMES = [field.name for cls in SETTINGS_CLASSES for field in fields(cls)]


def merged(**sources: Any) -> Settings:
    return merge(**{"environ": {}, **sources})


def write(folder: Path, text: str, name: str = "settings.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_without_sources_every_value_is_its_default() -> None:
    settings = merged()
    assert settings.server == ServerConfig()
    assert {setting.source for setting in settings.settings.values()} == {"default"}
    assert list(settings.settings) == list(dict.fromkeys(NAMES))


@given(st.sets(st.sampled_from(["preset", "file", "environment", "flag"])))
def test_the_nearest_source_wins(tmp_path_factory: pytest.TempPathFactory, present: set[str]) -> None:
    file = write(tmp_path_factory.mktemp("settings"), "max_num_seqs = 30\n")
    setting = merged(
        preset="latency" if "preset" in present else None,
        file=file if "file" in present else None,
        environ={"HEADRACE_MAX_NUM_SEQS": "31"} if "environment" in present else {},
        flags={"max_num_seqs": 32} if "flag" in present else {},
    ).settings["max_num_seqs"]
    expected = [
        ("flag", 32, "flag --max-num-seqs"),
        ("environment", 31, "environment HEADRACE_MAX_NUM_SEQS"),
        ("file", 30, f"file {file}"),
        ("preset", 16, "preset latency"),
    ]
    value, source = next(((value, source) for name, value, source in expected if name in present), (None, "default"))
    assert (setting.value, setting.source) == (value, source)


def test_a_name_that_both_classes_have_is_one_setting() -> None:
    for settings, size in [(merged(), ServerConfig().max_queue_size), (merged(flags={"max_queue_size": 3}), 3)]:
        assert settings.engine.max_queue_size == settings.server.max_queue_size == size
    assert merged(kinds=(EngineConfig,)).engine == EngineConfig()


def test_settings_of_other_commands_are_known_and_not_used(tmp_path: Path) -> None:
    file = write(tmp_path, 'host = "0.0.0.0"\nblock_size = 16\n')
    settings = merged(kinds=(EngineConfig,), file=file, environ={"HEADRACE_PORT": "1"}, preset="laptop")
    assert settings.engine.block_size == 16
    assert "host" not in settings.settings
    assert settings.engine.max_queue_size is None, "the preset's server part is not for an engine alone"


def test_yaml_says_what_toml_says(tmp_path: Path) -> None:
    toml = write(tmp_path, 'num_blocks = 7\nsafety_margin = 0\nsurgery = false\nqueue_timeout_s = "none"\n'
                 'served_model_name = ["a", "b"]\npreset = "laptop"\n')  # fmt: skip
    yaml = write(tmp_path, "num_blocks: 7\nsafety_margin: 0\nsurgery: false\nqueue_timeout_s:\n"
                 "served_model_name: [a, b]\npreset: laptop\n", "settings.yaml")  # fmt: skip
    a, b = merged(file=toml), merged(file=yaml)
    assert a.engine == b.engine and a.server == b.server
    assert (a.engine.num_blocks, a.engine.safety_margin, a.engine.surgery) == (7, 0.0, False)
    assert (a.server.queue_timeout_s, a.server.served_model_name) == (None, ("a", "b"))
    assert a.settings["max_memory_percent"].source == "preset laptop"
    assert merged(file=write(tmp_path, "", "empty.yml")).engine == merged().engine


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "blok_size = 3", "there is no setting 'blok_size'; did you mean 'block_size'"),
        ("a.toml", "[engine]\nblock_size = 16", "without tables"),
        ("a.toml", 'block_size = "16"', "block_size: '16' is not an integer"),
        ("a.toml", "block_size = true", "block_size: True is not an integer"),
        ("a.toml", "surgery = 1", "surgery: 1 is not true or false"),
        ("a.toml", 'cors_origins = "*"', "cors_origins: '*' is not a list, each a text"),
        ("a.toml", "preset = 3", "preset=3 is not a text"),
        ("a.toml", 'preset = "fast"', "preset='fast' is not one of latency, throughput, laptop"),
        ("a.toml", "block_size = ", "a.toml: Invalid value"),
        ("a.toml", "block_size = 8\nblock_size = 16", "overwrite"),
        ("a.yaml", "block_size: 8\nblock_size: 16", "'block_size' stands there twice, again in line 2"),
        ("a.yaml", "- a\n", "settings (name: value) are needed, not list"),
        ("a.yaml", "a: [", "a.yaml: while parsing"),
        ("a.yaml", "1: 2", "there is no setting 1"),
        ("a.yaml", "block_size: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a.ini", "", "must end in .toml, .yaml, .yml"),
    ],
)
def test_what_a_file_must_not_say(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        merged(file=write(tmp_path, text, name))
    assert message in str(raised.value)
    assert str(tmp_path / name) in str(raised.value) or "preset='fast'" in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        merged(file=tmp_path / "a.toml")
    with pytest.raises(ConfigError, match="there is no such file"):
        merged(environ={"HEADRACE_CONFIG": str(tmp_path / "a.toml")})


def test_file_and_preset_can_come_from_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path, 'num_blocks = 7\npreset = "laptop"\n')
    environ = {"HEADRACE_CONFIG": str(file), "HEADRACE_PRESET": "latency"}
    settings = merged(environ=environ).settings
    assert (settings["num_blocks"].value, settings["max_num_seqs"].source) == (7, "preset latency")
    assert merged(environ=environ, preset="throughput").settings["max_num_seqs"].source == "preset throughput"


def test_an_error_says_where_the_values_came_from() -> None:
    with pytest.raises(ConfigError, match=r"not a power of two.*\(block_size: environment BLOCK_SIZE\)"):
        assert merged(environ={"BLOCK_SIZE": "3"}).engine
    with pytest.raises(ConfigError, match=r"port=70000 .*\(port: flag --port\)"):
        assert merged(flags={"port": 70000}).server


def test_what_is_shown_hides_secrets() -> None:
    secrets = {"HEADRACE_API_KEY": "k" * 20, "HEADRACE_JWT_SECRET": "s" * 40, "HEADRACE_API_KEYS": "a:user:sha256:dead"}
    settings = merged(environ={**secrets, "HEADRACE_CPU_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0"})
    shown = json.loads(as_json(settings))
    lines = as_lines(settings)
    for secret in secrets.values():
        assert not any(secret in line for line in lines) and secret not in json.dumps(shown)
    assert shown["settings"]["jwt_secret"] == {"value": "(hidden)", "source": "environment HEADRACE_JWT_SECRET"}
    assert shown["environment"] == {"HEADRACE_CPU_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0"}
    assert len(lines) == len(settings.settings) + 2
    server = ServerConfig(api_key="k" * 20, jwt_secret="s" * 40)
    assert "kkkk" not in repr(server) and "ssss" not in repr(server)
