"""Whether a spec is one that compiles, without a tokenizer: what a server asks before it takes a request."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from headrace.errors import InvalidGuide
from headrace.text.guides.bounded import run_bounded
from headrace.text.guides.grammar import invalid, to_llguidance
from headrace.text.guides.spec import GuideSpec

COMPILE_TIMEOUT_S = 10.0

_CACHED_VERDICTS = 256


def check(spec: GuideSpec, timeout_s: float = COMPILE_TIMEOUT_S) -> None:
    """Raise what is wrong with a spec. Takes under a millisecond as a rule; call it off an event loop all the same.

    Raises:
        InvalidGuide: with llguidance's own words. GuideTimeout: it took longer than `timeout_s`.
    """
    words = _verdict(spec, timeout_s)
    if words is not None:
        raise InvalidGuide(words)


@lru_cache(maxsize=_CACHED_VERDICTS)
def _verdict(spec: GuideSpec, timeout_s: float) -> str | None:
    try:
        run_bounded(lambda: _validate(spec), timeout_s)
    except InvalidGuide as error:
        if type(error) is not InvalidGuide:
            raise  # a time-out says nothing about the next try
        return str(error)
    return None


def _validate(spec: GuideSpec) -> None:
    from llguidance import LLMatcher

    grammar = to_llguidance(spec)
    with_words_of_panics(
        spec, lambda: _raise_if_wrong(spec, *LLMatcher.validate_grammar_with_warnings(grammar, None, limits=limits()))
    )


def _raise_if_wrong(spec: GuideSpec, is_error: bool, messages: list[str]) -> None:
    if is_error:
        raise invalid(spec, messages[0])


def with_words_of_panics(spec: GuideSpec, work: Callable[[], Any]) -> Any:
    """Run native work; a panic in it, which Python sees as a BaseException of its own, is the spec's error."""
    try:
        return work()
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:
        raise invalid(spec, f"its compiler failed: {panic}") from panic


def limits() -> Any:
    """Llguidance's limits: its defaults, but for the memory of one lexer (about 2 kB a state), and short errors."""
    from llguidance import LLParserLimits

    return LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
