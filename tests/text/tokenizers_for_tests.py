"""Small tokenizers, trained on the spot: the two families that decoder models come with."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = [
    "The quick brown fox jumps over the lazy dog. It's 42 o'clock, isn't it?",
    "hello world, hello   wide  world\n\n\tindented = True\n",
    "naïve café – “quoted” 你好世界 你好吗 日本語",
    "smile 😀 family 👨‍👩‍👧 flag 🇳🇴 naïve",
] * 20

SPECIAL = ["<unk>", "<bos>", "<eos>"]


@cache
def byte_level() -> Any:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it: any byte may stand in any token."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False),
    )
    return _wrap(inner)


@cache
def byte_fallback() -> Any:
    """SentencePiece BPE as Llama 2 and Mistral have it: `▁` for spaces, one token per byte for unknown characters."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, limit_alphabet=60, show_progress=False)
    inner.train_from_iterator(TEXT, trainer)
    state = json.loads(inner.to_str())
    vocab = state["model"]["vocab"]
    for token in byte_tokens:
        vocab.setdefault(token, len(vocab))
    inner = Tokenizer.from_str(json.dumps(state))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrap(inner)


@cache
def metaspace() -> Any:
    """Unigram with a Metaspace pre-tokenizer, as T5's and Gemma's ancestors have it; no bytes."""
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.train_from_iterator(
        TEXT, trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    )
    return _wrap(inner)


def _wrap(inner: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")
