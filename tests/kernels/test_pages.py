"""Large memory, on huge pages."""

from __future__ import annotations

import pytest

from headrace.model.kernels.pages import HUGE_PAGE_BYTES, address_of, map_huge, zeroed_pages


@pytest.mark.parametrize("num_bytes", [1, 4096, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 5])
def test_pages_are_zero_and_aligned(num_bytes: int) -> None:
    memory = zeroed_pages(num_bytes)
    assert memory.shape == (num_bytes,)
    assert memory.data_ptr() % (HUGE_PAGE_BYTES if num_bytes >= HUGE_PAGE_BYTES else 64) == 0
    assert not memory.any()


def test_a_mapping_has_an_aligned_place_of_that_size() -> None:
    memory, start = map_huge(3 * HUGE_PAGE_BYTES + 5)
    assert (address_of(memory) + start) % HUGE_PAGE_BYTES == 0
    assert len(memory) - start >= 3 * HUGE_PAGE_BYTES + 5
