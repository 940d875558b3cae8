"""One server of the built-in model for all of these tests, and the official clients of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import anthropic
import openai
import pytest

from tests.contract.process import Server, serving


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """One of the workers that share the tests starts the server, not each."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("contract"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving("builtin", "--check-integrity") as served:
        yield served


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30) as made:
        yield made


@pytest.fixture(scope="session")
def claude(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=30) as made:
        yield made
