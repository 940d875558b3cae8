"""Large zeroed memory on huge pages: weights and caches are read front to back, and 4 KiB pages cost lookups."""

from __future__ import annotations

import ctypes
import mmap
import threading
from typing import Any

import torch

HUGE_PAGE_BYTES = 2 << 20

_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE, Linux 5.14 and later."""

_TOUCH_BYTES = 8 * HUGE_PAGE_BYTES
"""Touched in one call: a reserve stops within some milliseconds."""

_ALIGNMENT = 4096


def zeroed_pages(num_bytes: int) -> torch.Tensor:
    """A uint8 tensor of zeros, aligned to a huge page if it fills one; memory is taken when it is first written.

    Raises OSError where the address space does not have it.
    """
    if num_bytes < HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(num_bytes, dtype=torch.uint8)
    return _map(num_bytes)


def _map(num_bytes: int) -> torch.Tensor:
    size = (num_bytes + 2 * HUGE_PAGE_BYTES - 1) // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    pages = torch.frombuffer(memory, dtype=torch.uint8)
    start = -pages.data_ptr() % HUGE_PAGE_BYTES
    return pages[start : start + num_bytes]


class Reserve:
    """Memory that is taken from the system before it is needed, by a thread of its own.

    The system zeroes each page when it is first written. For the weights of a model that is the longest part of
    packing them; here it is done while the model's files are opened, which keeps one processor busy only.
    """

    def __init__(self, num_bytes: int) -> None:
        """Start to touch num_bytes; OSError where the address space does not have them."""
        self._pages = _map(max(num_bytes, _ALIGNMENT))
        self._used = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._touch, name="headrace-reserve", daemon=True)
        self._thread.start()

    def _touch(self) -> None:
        """From the front; where the system does not know how, the memory is touched by its first use as ever."""
        start, end = self._pages.data_ptr(), self._pages.data_ptr() + self._pages.numel()
        for address in range(start, end, _TOUCH_BYTES):
            if self._stopping.is_set() or not _advise(address, min(_TOUCH_BYTES, end - address), _POPULATE_WRITE):
                return

    def take(self, num_bytes: int) -> torch.Tensor:
        """A uint8 tensor of zeros: of the reserve, or of new memory when that does not suffice."""
        end = self._used + num_bytes
        if self._stopping.is_set() or end > self._pages.numel():
            return zeroed_pages(num_bytes)
        taken = self._pages[self._used : end]
        self._used = -(-end // _ALIGNMENT) * _ALIGNMENT
        return taken

    def give_back(self, pages: torch.Tensor) -> None:
        """Let the system have what was taken and is not read again; nothing happens to memory from elsewhere."""
        offset = pages.data_ptr() - self._pages.data_ptr()
        if 0 <= offset < self._pages.numel():
            _advise(pages.data_ptr(), pages.numel(), mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Stop touching, and let the system have what was not taken; repeatable."""
        self._stopping.set()
        self._thread.join()
        rest = self._pages[self._used :]
        if rest.numel():
            _advise(rest.data_ptr(), rest.numel(), mmap.MADV_DONTNEED)
        self._used = self._pages.numel()


def _advise(address: int, num_bytes: int, advice: int) -> bool:
    """Advise the system of memory, other threads running; whether it took the advice."""
    call: Any = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return bool(call(address, num_bytes, advice) == 0)
