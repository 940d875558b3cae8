"""Frames come out as they went in, in whatever pieces they arrive."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.remote.frames import FrameBuffer, framed


@given(st.lists(st.binary(max_size=300), max_size=12), st.lists(st.integers(1, 400), max_size=40))
def test_any_payloads_in_any_pieces(payloads: list[bytes], pieces: list[int]) -> None:
    stream = b"".join(framed(payload) for payload in payloads)
    buffer, found, start = FrameBuffer(), [], 0
    for size in [*pieces, len(stream)]:
        found += buffer.feed(stream[start : start + size])
        start += size
    assert found == payloads


def test_a_large_frame_in_small_pieces_costs_a_copy_or_two() -> None:
    payload = bytes(64 << 20)
    stream, buffer = framed(payload), FrameBuffer()
    begin = time.process_time()
    found = [
        frame for start in range(0, len(stream), 1 << 14) for frame in buffer.feed(stream[start : start + (1 << 14)])
    ]
    assert time.process_time() - begin < 5  # 4,000 pieces: quadratic copying would take minutes
    assert found == [payload]
