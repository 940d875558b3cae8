"""Large zeroed memory on huge pages: weights and caches are read front to back, and 4 KiB pages cost lookups.

torch is imported where a tensor is made: memory is mapped for a model (`reserve`) before torch is there.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HUGE_PAGE_BYTES = 2 << 20


def zeroed_pages(num_bytes: int) -> torch.Tensor:
    """A uint8 tensor of zeros, aligned to a huge page if it fills one; memory is taken when it is first written.

    Raises OSError where the address space does not have it.
    """
    import torch

    if num_bytes < HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(num_bytes, dtype=torch.uint8)
    memory, start = map_huge(num_bytes)
    return torch.frombuffer(memory, dtype=torch.uint8, count=num_bytes, offset=start)


def map_huge(num_bytes: int) -> tuple[mmap.mmap, int]:
    """New memory on huge pages where the system has them, and the offset in it from which num_bytes are aligned.

    Raises OSError where the address space does not have it.
    """
    size = (num_bytes + 2 * HUGE_PAGE_BYTES - 1) // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory, -address_of(memory) % HUGE_PAGE_BYTES


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
