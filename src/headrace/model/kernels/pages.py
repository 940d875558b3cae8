"""Large zeroed memory on huge pages: weights and caches are read front to back, and 4 KiB pages cost lookups."""

from __future__ import annotations

import mmap

import torch

HUGE_PAGE_BYTES = 2 << 20


def zeroed_pages(num_bytes: int) -> torch.Tensor:
    """A uint8 tensor of zeros, aligned to a huge page; memory is taken when it is first written.

    Raises OSError where the address space does not have it.
    """
    size = (num_bytes + 2 * HUGE_PAGE_BYTES - 1) // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(num_bytes, dtype=torch.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    pages = torch.frombuffer(memory, dtype=torch.uint8)
    start = -pages.data_ptr() % HUGE_PAGE_BYTES
    return pages[start : start + num_bytes]
