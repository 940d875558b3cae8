"""The one tokenizer type of the package, around any tokenizer of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from headrace.errors import InvalidRequest, ModelNotSupported
from headrace.text.chat_template import render_chat


class Tokenizer:
    """Text to token ids and back, the chat template, and what the engine asks of a vocabulary.

    All methods may be called from several threads at the same time: none changes the tokenizer once it is built
    (a tokenizer that would have to switch truncation or padding on a call is what raises "Already borrowed").

    Attributes:
        inner: the transformers tokenizer; its truncation and padding are switched off.
    """

    def __init__(self, source: Any, *, revision: str | None = None, trust_remote_code: bool = False) -> None:
        """Wrap a transformers tokenizer, or load one.

        Args:
            source: a transformers tokenizer, or a folder or hub id to load one from.
            revision: branch, tag or commit, for a hub id.
            trust_remote_code: allow the tokenizer to run code that comes with it.

        Raises:
            ModelNotSupported: there is no tokenizer that can be loaded.
        """
        named = isinstance(source, str | Path)
        self.inner: Any = _load(str(source), revision, trust_remote_code) if named else source
        if not callable(getattr(self.inner, "encode", None)) or not callable(getattr(self.inner, "decode", None)):
            raise ModelNotSupported(f"a {type(source).__name__} is not a tokenizer: pass one, a folder or a hub id")
        backend = getattr(self.inner, "backend_tokenizer", None)
        if backend is not None:
            backend.no_truncation()
            backend.no_padding()
        self._decode = _decoder(self.inner)
        self._encodes_plainly = _has_plain_encode(self.inner)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, by default with the special tokens that the model expects around a prompt."""
        if not isinstance(text, str):
            raise InvalidRequest(f"a text to encode must be a string, not {type(text).__name__}")
        try:
            if self._encodes_plainly:
                # Without offsets, and without the interpreter's lock: a long text does not hold other threads up.
                backend = self.inner.backend_tokenizer
                ids: list[int] = backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
                return ids
            return list(self.inner.encode(text, add_special_tokens=add_special_tokens))
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidRequest("the text is not Unicode: it holds half of a surrogate pair") from error

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of token ids.

        Spaces are never "cleaned up" afterwards: that would take back text that was already streamed.
        """
        return self._decode(list(token_ids), skip_special_tokens)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Token ids of a conversation.

        Args:
            messages: each with "role" and what the model's template reads, mostly "content".
            add_generation_prompt: end with the opening of the assistant's answer.
            tools: JSON schemas of the functions that the model may call.

        Raises:
            InvalidRequest: the tokenizer has no template, or the template refuses the messages.
        """
        text = self.render_chat(messages, add_generation_prompt=add_generation_prompt, tools=tools)
        return self.encode(text, add_special_tokens=False)  # the template writes them itself

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Text of a conversation as the template writes it; the arguments are those of `chat_template.render_chat`."""
        return render_chat(self.inner, messages, **options)

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be encoded."""
        return bool(getattr(self.inner, "chat_template", None))

    @cached_property
    def reads_tools(self) -> bool:
        """Whether a template of it tells the model of tools; without, they reach the model only as a guide."""
        given = getattr(self.inner, "chat_template", None) or ""
        templates = given.values() if isinstance(given, dict) else (given,)
        return any("tools" in template for template in templates)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """End-of-sequence ids by the tokenizer's word; the model's generation config may add to them."""
        eos = getattr(self.inner, "eos_token_id", None)
        if eos is None:
            return ()
        return tuple(eos) if isinstance(eos, list | tuple) else (eos,)

    @cached_property
    def vocab_size(self) -> int:
        """Tokens that can be encoded, added ones included; the model's embedding may have more rows."""
        return len(self.inner)

    @cached_property
    def special_token_ids(self) -> frozenset[int]:
        """Ids that `decode` leaves out under `skip_special_tokens`."""
        added = getattr(self.inner, "added_tokens_decoder", {})
        marked = (token_id for token_id, token in added.items() if getattr(token, "special", False))
        if _has_plain_decode(self.inner):
            return frozenset(marked)
        return frozenset(marked) | frozenset(self.inner.all_special_ids)

    @cached_property
    def byte_token_ids(self) -> frozenset[int]:
        """Ids of the tokens <0x00> … <0xFF> that SentencePiece vocabularies spell unknown characters with."""
        names = [f"<0x{byte:02X}>" for byte in range(256)]
        ids = self.inner.convert_tokens_to_ids(names)
        known = [i for i in ids if i is not None]
        spelled = dict(zip(known, self.inner.convert_ids_to_tokens(known), strict=True))
        return frozenset(i for name, i in zip(names, ids, strict=True) if i is not None and spelled[i] == name)


_PATH_BEGINNINGS = ("/", "./", "../", "~")
"""A hub id never begins so."""


def _load(name: str, revision: str | None, trust_remote_code: bool) -> Any:
    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    if name.startswith(_PATH_BEGINNINGS) and not Path(name).is_dir():
        raise ModelNotSupported(f"there is no folder {name!r}: give a model's folder, a hub id (owner/name) or builtin")
    try:
        if _is_plain_folder(Path(name)):
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(name)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelNotSupported(f"no tokenizer could be loaded from {name!r}: {reason}") from error


_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
_PLAIN_MODELS = ("llama", "qwen2", "qwen3")


def _is_plain_folder(folder: Path) -> bool:
    """Whether AutoTokenizer would load a folder as PreTrainedTokenizerFast; asking it imports torch: a second.

    For other models the class that the folder names may be known to be wrong, and AutoTokenizer takes another.
    """
    try:
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        model = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return (
        (folder / "tokenizer.json").is_file()
        and tokenizer.get("tokenizer_class") in _PLAIN_CLASSES
        and "auto_map" not in tokenizer
        and model.get("model_type") in _PLAIN_MODELS
    )


def _has_plain_encode(inner: Any) -> bool:
    """Whether encoding is the Rust library's own, not overridden by the tokenizer's class or settings."""
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    kind = type(inner)
    return (
        isinstance(inner, PreTrainedTokenizerFast)
        and kind.encode is PreTrainedTokenizerBase.encode
        and kind._encode_plus is PreTrainedTokenizerFast._encode_plus
        and inner.backend_tokenizer.encode_special_tokens == inner.split_special_tokens
    )


def _has_plain_decode(inner: Any) -> bool:
    """Whether decoding is the Rust library's own, not overridden by the tokenizer's class."""
    from transformers import PreTrainedTokenizerFast

    return isinstance(inner, PreTrainedTokenizerFast) and type(inner)._decode is PreTrainedTokenizerFast._decode


def _decoder(inner: Any) -> Callable[[list[int], bool], str]:
    """The shortest way to decode: two of these calls are due per generated token.

    transformers' own `decode` adds 15 µs of argument handling to the 5 µs of the Rust library.
    """
    if _has_plain_decode(inner):
        decode: Callable[[list[int], bool], str] = inner.backend_tokenizer.decode
        return decode

    def slow(ids: list[int], skip: bool) -> str:
        text: str = inner.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        return text

    return slow
