"""Events come out whole and the same, wherever the network cuts them."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.gateway.events import EventStream
from tests.gateway.scripted import DONE, event, piece

TEXTS = st.lists(st.sampled_from(["word", " *", "\n: headrace 0:1 *9\n", "error", "[DONE]", "é\r\n\r\n"]), max_size=4)
GROUPS = st.lists(st.tuples(TEXTS, st.lists(st.integers(0, 99), min_size=1, max_size=5)), min_size=1, max_size=6)


def written(groups: list[tuple[list[str], list[int]]]) -> list[tuple[bytes, bytes]]:
    """Each group as a replica writes it, and what of it is the client's."""
    found = []
    for texts, ids in groups:
        events = b"".join(event(piece(text)) for text in texts)
        if not texts:
            found.append((b"", b""))
            continue
        star = f" *{len(texts)}" if len(texts) > 1 else ""
        comment = f": headrace 0:{','.join(map(str, ids))}{star}\n".encode()
        found.append((comment + events, events))
    return [*found, (DONE, DONE)]


@given(GROUPS, st.lists(st.integers(1, 40), min_size=1, max_size=20))
@example([(["a", "b"], [1, 2])], [11])  # half of the first comment, which a group begins with
@example([(["a", "b"], [1, 2])], [17])
def test_groups_come_out_whole_wherever_they_are_cut(
    groups: list[tuple[list[str], list[int]]], sizes: list[int]
) -> None:
    parts = written(groups)
    text = b"".join(part for part, _ in parts)
    boundaries = {0, *accumulate(len(events) for _, events in parts)}
    stream, out, start, turn = EventStream(passes_comments=False), b"", 0, 0
    while start < len(text):
        size = sizes[turn % len(sizes)]
        out += stream.push(text[start : start + size])
        assert len(out) in boundaries
        start, turn = start + size, turn + 1
    assert out == b"".join(events for _, events in parts)
    assert stream.ended
    assert not stream.failed
    expected = [token for texts, ids in groups if texts for token in ids]
    assert (stream.choices[0].token_ids if stream.choices else []) == expected
