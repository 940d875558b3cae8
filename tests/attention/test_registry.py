"""Attention implementations by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.errors import ConfigError
from headrace.model.attention import registry


@pytest.mark.parametrize("name", registry.available())
def test_every_name_makes_the_implementation_of_that_name(name):
    assert registry.get(name).name == name


def test_auto_is_one_of_the_available_names():
    assert registry.get("auto").name == registry.available()[0]


def test_every_get_makes_a_new_one():
    assert registry.get("torch") is not registry.get("torch")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'flash'.*auto, torch, reference"):
        registry.get("flash")


def test_a_user_registers_an_implementation(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    mine = registry.get("reference")
    registry.register("mine", lambda: mine)
    assert registry.get("mine") is mine
    assert "mine" in registry.available()


@pytest.mark.parametrize("name", ["torch", "auto"])
def test_a_taken_name_is_refused(name):
    with pytest.raises(ConfigError, match=name):
        registry.register(name, lambda: registry.get("reference"))


def test_the_names_are_known_without_importing_torch():
    code = (
        "import sys; from headrace.model.attention import registry; registry.available(); print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "False"
