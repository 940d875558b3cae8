"""The tokenizer of a model that another process runs."""

from __future__ import annotations

from pathlib import Path

from headrace import assets
from headrace.text import Tokenizer


def tokenizer_of(model: str, revision: str | None = None, trust_remote_code: bool = False) -> Tokenizer:
    """Load the tokenizer of a folder, a hub id or a model that comes with headrace.

    Raises:
        ModelNotSupported: there is none that can be loaded.
    """
    source: str | Path = assets.path(model) if model in assets.names() else model
    return Tokenizer(source, revision=revision, trust_remote_code=trust_remote_code)
