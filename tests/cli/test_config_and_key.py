"""`headrace config show` and `headrace key new`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.cli.main import main
from headrace.config import ServerConfig
from headrace.server.auth import Authenticator
from headrace.server.keys import parse_entry


def test_each_value_and_where_it_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("preset: laptop\nblock_size: 16\ndrain_timeout_s: 3\n")
    monkeypatch.setenv("MAX_BATCH_TOKENS", "99")
    command = ["config", "show", "--config", str(file), "--port", "0", "--served-model-name", "a", "--no-surgery"]
    assert main([*command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["settings"]
    assert shown["block_size"] == {"value": 16, "source": f"file {file}"}
    assert shown["drain_timeout_s"] == {"value": 3.0, "source": f"file {file}"}
    assert shown["max_num_seqs"] == {"value": 8, "source": "preset laptop"}
    assert shown["max_num_batched_tokens"] == {"value": 99, "source": "environment MAX_BATCH_TOKENS"}
    assert shown["port"] == {"value": 0, "source": "flag --port"}
    assert shown["served_model_name"] == {"value": ["a"], "source": "flag --served-model-name"}
    assert shown["surgery"] == {"value": False, "source": "flag --no-surgery"}
    assert shown["host"] == {"value": "127.0.0.1", "source": "default"}
    assert main(command) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["block_size", "16", "file", str(file)] in lines
    assert len(lines) == len(shown)


def test_what_is_wrong_is_said_as_at_the_start_of_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--host", "0.0.0.0"]) == 2
    assert "headrace key new NAME" in capsys.readouterr().err
    assert main(["config", "show", "--block-size", "3"]) == 2
    assert "(block_size: flag --block-size)" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--api-key", "--api-keys", "--jwt-secret"])
def test_secrets_have_no_flag(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["config", "show", flag, "x" * 40])
    variable = "HEADRACE_" + flag.removeprefix("--").replace("-", "_").upper()
    assert f"{flag}: other users see command lines, so give {variable}" in capsys.readouterr().err


def test_other_commands_take_the_same_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("block_size = 3\n")
    assert main(["generate", "/nowhere", "--prompt", "x", "--config", str(file)]) == 2
    assert f"block_size=3 is not a power of two; 16 or 32 works for every model (block_size: file {file})" in (
        capsys.readouterr().err
    )
    monkeypatch.setenv("HEADRACE_BLOK_SIZE", "3")
    assert main(["doctor"]) == 2
    assert "did you mean HEADRACE_BLOCK_SIZE" in capsys.readouterr().err


def test_a_key_is_printed_once_and_its_hash_is_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.txt"
    assert main(["key", "new", "alice", "--role", "admin", "--file", str(file)]) == 0
    key = capsys.readouterr().out.strip()
    identity = Authenticator(ServerConfig(api_keys_file=str(file))).authenticate({"x-api-key": key})
    assert (identity.name, identity.role) == ("alice", "admin")
    assert main(["key", "new", "alice", "--file", str(file)]) == 2
    assert "two API keys" in capsys.readouterr().err


def test_without_a_file_the_line_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "new", "bob"]) == 0
    shown = capsys.readouterr()
    entry = parse_entry(shown.err.strip().removeprefix("headrace: keep this line: "))
    authenticator = Authenticator(ServerConfig(api_keys=(str(entry),)))
    assert authenticator.authenticate({"x-api-key": shown.out.strip()}).name == "bob"
