"""API keys of a file that changes while it is used, under a clock that tests move."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from headrace.config import ServerConfig
from headrace.errors import ConfigError, Unauthorized
from headrace.server.auth import Authenticator
from headrace.server.keys import KeyEntry, new_key

ANN, ANN_ENTRY = new_key("ann")
BOB, BOB_ENTRY = new_key("bob", "admin")
FIXED, FIXED_ENTRY = new_key("fixed")


class Keys:
    """A keys file, and who is let in by it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = 0.0
        self.write(ANN_ENTRY)
        config = ServerConfig(api_keys_file=str(path), api_keys=(str(FIXED_ENTRY),))
        self.authenticator = Authenticator(config, lambda: self.now_s)

    def write(self, *entries: KeyEntry) -> None:
        """In the place of the file, as an editor or a mounted secret does it."""
        scratch = self.path.with_suffix(".new")
        scratch.write_text("\n".join(map(str, entries)))
        scratch.replace(self.path)

    def lets_in(self, key: str) -> bool:
        try:
            self.authenticator.authenticate({"x-api-key": key})
        except Unauthorized:
            return False
        return True


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.txt")


def test_a_change_holds_after_a_second(keys: Keys) -> None:
    keys.write(BOB_ENTRY)
    assert keys.lets_in(ANN)
    assert not keys.lets_in(BOB)
    keys.now_s = 1.0
    assert not keys.lets_in(ANN)
    assert keys.lets_in(BOB)
    assert keys.lets_in(FIXED)
    keys.authenticator.authenticate({"authorization": f"Bearer {BOB}"}).require_admin()


def test_a_file_that_cannot_be_used_is_said_once_and_locks_nobody_out(
    keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    for spoil in (
        lambda: keys.path.write_text("half of a li"),
        lambda: keys.path.unlink(),
        lambda: keys.write(ANN_ENTRY, FIXED_ENTRY),  # a name that the settings have already
    ):
        spoil()
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                keys.now_s += 1.0
                assert keys.lets_in(ANN)
                assert keys.lets_in(FIXED)
        assert len(caplog.records) == 1
    keys.write(BOB_ENTRY)
    keys.now_s += 1.0
    assert keys.lets_in(BOB)
    assert not keys.lets_in(ANN)


def test_the_first_file_has_to_be_good(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Authenticator(ServerConfig(api_keys_file=str(tmp_path / "nowhere")))
    twice = tmp_path / "twice"
    twice.write_text(f"{ANN_ENTRY}\n")
    with pytest.raises(ConfigError, match="two API keys"):
        Authenticator(ServerConfig(api_keys_file=str(twice), api_keys=(str(ANN_ENTRY),)))
