"""A command line whose engine is a fake."""

from __future__ import annotations

import pytest

from headrace.cli import chat, generate
from tests.cli.fake_llm import FakeLLM


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> FakeLLM:
    """What `generate` and `chat` open in place of the model that they are given."""
    fake = FakeLLM()
    for module in (generate, chat):
        monkeypatch.setattr(module, "open_llm", lambda arguments: fake)
    return fake
