"""Frames stay whole however a client splits lines."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from headrace.protocol.sse import frame


@given(st.text(st.sampled_from('\x0b\x0c\x1c\x85\u2028\u2029\r\n\\"aé漢😀')))
def test_a_frame_is_one_line_for_whoever_splits_text(text: str) -> None:
    (line, end) = frame({"text": text}).decode().splitlines()
    assert end == ""
    assert json.loads(line.removeprefix("data: ")) == {"text": text}
