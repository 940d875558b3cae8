"""A small model in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bench.checkpoint import make
from headrace.bench.shapes import SHAPES


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shape XS in float32; made here, where torch is imported already, and not in a process of its own."""
    wanted, folder = SHAPES["XS"], tmp_path_factory.mktemp("models") / "XS"
    make(wanted.model_type, dict(wanted.config), "float32", folder)
    return folder
