"""A random model in a folder with its tokenizer, and compilers for small tokenizers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.text import Tokenizer
from headrace.text.guides import GuideCompiler
from tests.guides.answers import EOS, VOCAB_SIZE
from tests.text.tokenizers_for_tests import byte_level


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fails a test whose threads outlive it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while left := [t for t in threading.enumerate() if t not in before and t.name.startswith("headrace")]:
        assert time.monotonic() < deadline, f"threads are left: {left}"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(byte_level())


@pytest.fixture(scope="session")
def compiler(tokenizer: Tokenizer) -> GuideCompiler:
    """For a model of VOCAB_SIZE, more than the tokenizer has."""
    return GuideCompiler(tokenizer, VOCAB_SIZE)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Qwen3 in float32, and the tokenizer; initialised so wide that its tokens vary."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        initializer_range=0.4,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=EOS,
    )
    folder = tmp_path_factory.mktemp("random-model")
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer: Any = byte_level()
    tokenizer.save_pretrained(folder)
    return folder
