"""Compiles specs for one tokenizer, and keeps what was compiled."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from headrace.errors import InvalidRequest
from headrace.text.guides.bounded import run_bounded
from headrace.text.guides.checking import COMPILE_TIMEOUT_S, limits, with_words_of_panics
from headrace.text.guides.grammar import invalid, to_llguidance
from headrace.text.guides.guide import Guide
from headrace.text.guides.spec import GuideSpec
from headrace.text.tokenizer import Tokenizer

_END = "<|end of the guide|>"
_TOKENIZER_TIMEOUT_S = 60.0


class GuideCompiler:
    """Makes guides for one model. Thread-safe; blocks its caller, so it is for a worker's thread.

    Args:
        tokenizer: of the model, or what loads it when the first guide comes.
        vocab_size: columns of the model's logits.
        timeout_s: for one compilation. max_cached: compiled grammars that are kept, the last used; max_cached_chars:
            bounds their texts together, and by that their memory (about a hundred bytes a character).
    """

    def __init__(
        self,
        tokenizer: Tokenizer | Callable[[], Tokenizer],
        vocab_size: int,
        *,
        timeout_s: float = COMPILE_TIMEOUT_S,
        max_cached: int = 64,
        max_cached_chars: int = 2**21,
    ) -> None:
        """Nothing is compiled; the tokenizer is converted with the first guide."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._timeout_s = timeout_s
        self._max_cached = max_cached
        self._max_cached_chars = max_cached_chars
        self._lock = threading.Lock()
        self._cache: OrderedDict[GuideSpec, Guide] = OrderedDict()
        self._converting = threading.Lock()
        self._converted: tuple[Any, int] | None = None

    def compile(self, spec: GuideSpec) -> Guide:
        """A guide at its start, the caller's own.

        Raises:
            InvalidGuide: with llguidance's words. GuideTimeout: it took too long.
            InvalidRequest: the model's tokenizer is none that guides can be made for.
            ModelNotSupported: it cannot be loaded.
        """
        with self._lock:
            kept = self._cache.get(spec)
            if kept is not None:
                self._cache.move_to_end(spec)
        if kept is None:
            converted, end_id = self._convert_tokenizer()
            kept = run_bounded(lambda: self._compile(spec, converted, end_id), self._timeout_s)
            self._keep(spec, kept)
        return kept.copy()

    @property
    def num_cached(self) -> int:
        """Compiled grammars that are kept."""
        return len(self._cache)

    def _compile(self, spec: GuideSpec, converted: Any, end_id: int) -> Guide:
        from llguidance import LLMatcher

        grammar = to_llguidance(spec)

        def work() -> Guide:
            matcher = LLMatcher(converted, grammar, log_level=0, limits=limits())
            if not matcher.is_error():
                # Here and not with the first token: the first mask fills most of the lexer's tables.
                matcher.compute_bitmask()
            if matcher.is_error():
                raise invalid(spec, matcher.get_error())
            return Guide(matcher, self._vocab_size, -(-converted.vocab_size // 32), end_id)

        guide: Guide = with_words_of_panics(spec, work)
        return guide

    def _keep(self, spec: GuideSpec, guide: Guide) -> None:
        with self._lock:
            self._cache[spec] = guide
            self._cache.move_to_end(spec)
            while len(self._cache) > 1 and (
                len(self._cache) > self._max_cached
                or sum(len(kept.value) for kept in self._cache) > self._max_cached_chars
            ):
                self._cache.popitem(last=False)

    def _convert_tokenizer(self) -> tuple[Any, int]:
        """Llguidance's form of the tokenizer, and the id that stands for the end; once, about a second for 150,000."""
        with self._converting:
            if self._converted is None:
                given, vocab_size = self._tokenizer, self._vocab_size
                tokenizer = given if isinstance(given, Tokenizer) else given()
                self._converted = run_bounded(lambda: _converted(tokenizer, vocab_size), _TOKENIZER_TIMEOUT_S)
            return self._converted


def _converted(tokenizer: Tokenizer, vocab_size: int) -> tuple[Any, int]:
    """The tokenizer with one more token, the end.

    Which tokens end an answer is each request's own to say (its stop tokens, other end-of-sequence ids, none at all),
    so the end in a grammar is none of the model's.
    """
    from llguidance import LLTokenizer

    name = type(tokenizer.inner).__name__
    backend = getattr(tokenizer.inner, "backend_tokenizer", None)
    if backend is None:
        raise InvalidRequest(
            f"guides need a fast tokenizer (one of the tokenizers library), and this model's {name} is none"
        )
    state = json.loads(backend.to_str())
    end_id = 1 + max(backend.get_vocab(with_added_tokens=True).values())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    state.setdefault("added_tokens", []).append({"id": end_id, "content": _END, **flags, "special": True})
    try:
        converted = LLTokenizer(json.dumps(state), n_vocab=max(vocab_size, end_id + 1), eos_token=[end_id])
    except ValueError as error:
        words = " ".join(str(error).split())
        raise InvalidRequest(f"guides cannot be made for this model's tokenizer ({name}): {words}") from error
    return converted, end_id
