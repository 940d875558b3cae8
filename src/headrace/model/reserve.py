"""Memory for a model's packed weights, taken from the system while torch and transformers are imported.

The system zeroes each page when it is first written; where it is a guest, the host may have to find the page first. For
the weights of a model that is the longest part of packing them, and imports leave a processor idle for seconds.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.config import EngineConfig
from headrace.config.environment import visible_gpus
from headrace.model.checkpoint_size import matrix_bytes
from headrace.model.kernels.pages import HUGE_PAGE_BYTES, address_of, map_huge, zeroed_pages
from headrace.observability.machine import available_memory_bytes, usable_threads

if TYPE_CHECKING:
    import torch

_CHUNK_BYTES = 16 * HUGE_PAGE_BYTES
"""Written in one call: some milliseconds where the memory is there, a tenth of a second where a host has to find it."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""By the name of the dtype that the kernels pack."""


class Reserve:
    """Memory that a thread of its own writes zeros to before it is needed, from the front.

    Not by MADV_POPULATE_WRITE: that holds the lock that every mapping of memory needs, an import's included.
    """

    def __init__(self, num_bytes: int) -> None:
        """Start to write num_bytes; OSError where the address space does not have them."""
        self.num_bytes = num_bytes
        self._memory, self._start = map_huge(num_bytes)
        self._used = 0  # of num_bytes: handed out
        self._chunk = range(0)  # of num_bytes: is being written, or was last
        self._is_writing = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write, name="headrace-reserve", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        address = address_of(self._memory) + self._start
        while self._next_chunk():
            ctypes.memset(address + self._chunk.start, 0, len(self._chunk))  # other threads run meanwhile

    def _next_chunk(self) -> bool:
        """Choose it, behind what is written or handed out; False: there is no more to do."""
        with self._changed:
            begin = max(self._chunk.stop, self._used)
            self._chunk = range(begin, min(begin + _CHUNK_BYTES, self.num_bytes))
            self._is_writing = self._is_writing and len(self._chunk) > 0
            self._changed.notify_all()
            return self._is_writing

    def take(self, num_bytes: int) -> torch.Tensor:
        """A uint8 tensor of zeros: of the reserve, or of new memory when that does not suffice."""
        import torch

        with self._changed:
            begin, end = self._used, self._used + num_bytes
            if end > self.num_bytes:
                return zeroed_pages(num_bytes)
            self._used = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE  # chunks begin behind it from now on
            chunk = self._chunk
            if begin < chunk.stop and chunk.start < end:
                self._changed.wait_for(lambda: self._chunk is not chunk)
        return torch.frombuffer(self._memory, dtype=torch.uint8, count=num_bytes, offset=self._start + begin)

    def give_back(self, pages: torch.Tensor) -> None:
        """Let the system have what was taken and is not read again; nothing happens to memory from elsewhere."""
        offset = pages.data_ptr() - address_of(self._memory)
        if self._start <= offset < self._start + self.num_bytes:
            self._memory.madvise(mmap.MADV_DONTNEED, offset, pages.numel())

    def close(self) -> None:
        """Stop writing, and let the system have what was not taken; repeatable."""
        with self._changed:
            self._is_writing = False
        self._thread.join()
        if self._used < self.num_bytes:
            self._memory.madvise(mmap.MADV_DONTNEED, self._start + self._used, self.num_bytes - self._used)
        self._used = self.num_bytes


def reserve_for(model: Any, config: EngineConfig, revision: str | None = None) -> Reserve | None:
    """A reserve for what will be packed of a model; None where it is not known, or would not help, or fit easily.

    Needs no torch. Whoever loads the model closes it.

    Args:
        model: as `load` takes it. config: of its engine. revision: of a hub id.
    """
    packs = config.surgery and config.compile_mode is None
    on_cpu = config.device == "cpu" or (config.device == "auto" and not visible_gpus())
    name = config.quantization or config.dtype
    if not packs or not on_cpu or not isinstance(model, str | Path) or usable_threads() < 2:
        return None
    if name not in ("auto", *_ITEM_BYTES):
        return None
    num_bytes = matrix_bytes(_folder(model, revision), _ITEM_BYTES.get(name))
    available = available_memory_bytes()
    if not num_bytes or available is None or 2 * num_bytes > available:
        return None
    return Reserve(num_bytes)


def _folder(model: str | Path, revision: str | None) -> Path:
    """Where the model's files are: the folder itself, or the hub's cache; what is not downloaded is in no folder."""
    folder = Path(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(str(model), "config.json", revision=revision)
    except ValueError:  # no name of the hub
        return folder
    return Path(config).parent if isinstance(config, str) else folder
