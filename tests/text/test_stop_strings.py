"""Stop strings are found wherever the pieces were cut, and nothing of them is ever given out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.text import StopStringMatcher


def naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The first end of a stop string in the text; of several the longest."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)], stop
    return text, None


def longest_held(text: str, stops: list[str]) -> int:
    """Length of the longest suffix of the text that begins a stop string."""
    return max(size for size in range(len(text) + 1) if size == 0 or any(s.startswith(text[-size:]) for s in stops))


SMALL = st.text("ab", min_size=0, max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)


@given(pushes=st.lists(SMALL, max_size=6), stops=STOPS)
def test_as_a_search_of_the_whole_text_and_nothing_held_too_long(pushes: list[str], stops: list[str]) -> None:
    matcher, given_out, seen = StopStringMatcher(stops), "", ""
    expected, expected_stop = naive("".join(pushes), stops)
    for push in pushes:
        seen += push
        emitted, stop = matcher.push(push)
        given_out += emitted
        if stop is not None:
            assert (given_out, stop) == (expected, expected_stop)
            return
        assert len(given_out) == len(seen) - longest_held(seen, stops)
    assert expected_stop is None
    assert given_out + matcher.flush() == expected


@pytest.mark.parametrize(
    ("stops", "pushes", "expected"),
    [
        (["\n\n"], ["one\n", "\ntwo"], ("one", "\n\n")),
        (["</s>", "</"], ["a<", "/", "s>"], ("a", "</")),
        (["abcd", "bc"], ["a", "b", "c", "d"], ("a", "bc")),
        (["bc", "abc"], ["xa", "bc"], ("x", "abc")),
        (["aab"], ["aaa", "ab"], ("aa", "aab")),
        (["END"], ["E", "N", "EN", "D"], ("EN", "END")),
        (["終わり"], ["終", "わ終わ", "り!"], ("終わ", "終わり")),
    ],
)
def test_examples(stops: list[str], pushes: list[str], expected: tuple[str, str]) -> None:
    matcher, given_out = StopStringMatcher(stops), ""
    for push in pushes:
        emitted, stop = matcher.push(push)
        given_out += emitted
        if stop is not None:
            break
    assert (given_out, stop) == expected


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStringMatcher(["a", ""])
