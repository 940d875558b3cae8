"""Memory on huge pages, and memory that is taken ahead of use."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch

from headrace.model.kernels import pages
from headrace.model.kernels.pages import HUGE_PAGE_BYTES, Reserve, zeroed_pages


def resident_bytes(memory: torch.Tensor) -> int:
    """Bytes of the mapping around a tensor that are in memory."""
    address, inside = memory.data_ptr(), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= address < end
        elif inside and first == "Rss:":
            return int(rest.split()[0]) << 10
    raise AssertionError("the memory is not mapped")


@pytest.mark.parametrize("num_bytes", [1, 4096, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 5])
def test_pages_are_zero_and_aligned(num_bytes: int) -> None:
    memory = zeroed_pages(num_bytes)
    assert memory.shape == (num_bytes,)
    assert memory.data_ptr() % (HUGE_PAGE_BYTES if num_bytes >= HUGE_PAGE_BYTES else 64) == 0
    assert not memory.any()


def test_a_reserve_is_handed_out_once_and_then_new_memory() -> None:
    reserve = Reserve(2 * HUGE_PAGE_BYTES)
    taken = [reserve.take(size) for size in (5000, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES)]
    for value, memory in enumerate(taken, 1):
        assert memory.data_ptr() % 64 == 0
        assert not memory.any()
        memory.fill_(value)
    assert [int(memory.min()) for memory in taken] == [1, 2, 3]
    start = taken[0].data_ptr()
    inside = [start <= memory.data_ptr() < start + 2 * HUGE_PAGE_BYTES for memory in taken]
    assert inside == [True, True, False]
    reserve.close()


def test_what_is_touched_ahead_and_not_taken_goes_back_to_the_system() -> None:
    reserve = Reserve(16 * HUGE_PAGE_BYTES)
    reserve._thread.join()
    used = reserve.take(3 * HUGE_PAGE_BYTES).fill_(1)
    if resident_bytes(used) < 16 * HUGE_PAGE_BYTES:
        pytest.skip("this system does not touch memory ahead")
    reserve.close()
    reserve.close()
    assert 3 * HUGE_PAGE_BYTES <= resident_bytes(used) <= 4 * HUGE_PAGE_BYTES
    assert used.all()
    assert not reserve.take(100).any()  # from elsewhere now


def test_given_back_memory_leaves_its_neighbours_alone() -> None:
    reserve = Reserve(8 * HUGE_PAGE_BYTES)
    first, second, third = (reserve.take(2 * HUGE_PAGE_BYTES).fill_(7) for _ in range(3))
    reserve.close()
    before = resident_bytes(first)
    reserve.give_back(second)
    assert resident_bytes(first) <= before - 2 * HUGE_PAGE_BYTES
    assert (first == 7).all()
    assert (third == 7).all()
    elsewhere = torch.ones(5000, dtype=torch.uint8)
    reserve.give_back(elsewhere)
    assert elsewhere.all()


def test_a_system_that_cannot_touch_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_POPULATE_WRITE", 12345)
    reserve = Reserve(4 * HUGE_PAGE_BYTES)
    reserve._thread.join()
    assert not reserve.take(HUGE_PAGE_BYTES).any()
    reserve.close()


def test_no_cycle_keeps_a_reserve() -> None:
    reserve = Reserve(HUGE_PAGE_BYTES)
    reserve.close()
    gone = weakref.ref(reserve)
    del reserve
    gc.collect()
    assert gone() is None
