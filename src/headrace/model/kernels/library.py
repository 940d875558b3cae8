"""Finds the compiled library, opens it for one instruction set, and declares its C interface to ctypes."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

from headrace.config.environment import read_cpu_environment
from headrace.errors import ConfigError
from headrace.model.kernels.structs import (
    AttentionStruct,
    CacheStruct,
    DrawStruct,
    ExpertsStruct,
    MatrixStruct,
    NormStruct,
    ProgramStruct,
    RopeStruct,
    StepStruct,
)
from headrace.observability.machine import usable_threads

ABI = 3
LIBRARY_PATH = Path(__file__).with_name("libheadrace.so")

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


_P, _L, _I = c_void_p, c_int64, c_int32
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "hr_abi": (_I, ()),
    "hr_available": (c_char_p, ()),
    "hr_open": (_P, (c_char_p, _I)),
    "hr_close": (None, (_P,)),
    "hr_probe_flops": (c_double, (_P, _L)),
    "hr_probe_read": (None, (_P, _P, _L)),
    "hr_packed_bytes": (_L, (_P, POINTER(MatrixStruct))),
    "hr_pack": (_I, (_P, POINTER(MatrixStruct), _P, _L, _I, _L, _L)),
    "hr_unpack": (_I, (_P, POINTER(MatrixStruct), _P, _L, _L, _L)),
    "hr_lookup": (_I, (_P, POINTER(MatrixStruct), _P, _L, _P, _L)),
    "hr_linear": (_I, (_P, POINTER(MatrixStruct), _P, _L, _I, _P, _L, _I, _P, _L, _L, _I)),
    "hr_cache_padding": (_L, ()),
    "hr_cache_write": (_I, (_P, POINTER(CacheStruct), _P, _L, _L, _P, _L, _L, _P, _L)),
    "hr_attend": (_I, (_P, POINTER(AttentionStruct))),
    "hr_rope_and_write": (_I, (_P, POINTER(RopeStruct))),
    "hr_norm": (_I, (_P, POINTER(NormStruct))),
    "hr_activate": (_I, (_P, _P, _L, _P, _L, _P, _L, _L, _L, _I, _I)),
    "hr_experts": (_I, (_P, POINTER(ExpertsStruct))),
    "hr_run": (_I, (_P, POINTER(ProgramStruct), POINTER(StepStruct), POINTER(_P), _I, _I)),
    "hr_draw": (_I, (_P, POINTER(DrawStruct))),
    "hr_argmax": (_I, (_P, _P, _L, _L, _L, _I, _P)),
}


@cache
def load_library(path: Path = LIBRARY_PATH) -> ctypes.CDLL | None:
    """The library with its signatures declared (loading twice gives the same one); None where it was not built.

    Raises ConfigError when it belongs to another version of the package.
    """
    if not path.exists():
        return None
    library = ctypes.CDLL(str(path))
    if library.hr_abi() != ABI:
        raise ConfigError(f"{path.name} has interface {library.hr_abi()}, not {ABI}: install headrace again")
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def available_isas(path: Path = LIBRARY_PATH) -> tuple[str, ...]:
    """The instruction sets that run here, best first; empty where the library was not built."""
    library = load_library(path)
    return tuple(library.hr_available().decode().split(",")) if library else ()


class Kernels:
    """One instruction set of the library, and a pool of threads; every wrapper takes one.

    Calls may come from any thread. What was packed with one of these fits those of the same instruction set.

    Attributes:
        isa: its name. num_threads: the calling thread included.
        library: the functions of csrc/headrace.h.
        context: the hr_context that they take.
    """

    def __init__(self, library: ctypes.CDLL, isa: str, num_threads: int) -> None:
        """Raises ConfigError when the instruction set does not run here."""
        self.context: int | None = library.hr_open(isa.encode(), num_threads)
        if self.context is None:
            runs = library.hr_available().decode()
            raise ConfigError(f"the CPU kernels have no instruction set {isa!r} that runs here, but {runs}")
        self.library = library
        self.isa = isa
        self.num_threads = num_threads

    def __del__(self) -> None:
        """End the threads."""
        if getattr(self, "context", None) is not None:
            self.library.hr_close(self.context)


def open_kernels(isa: str | None = None, num_threads: int | None = None, path: Path = LIBRARY_PATH) -> Kernels:
    """Open the library: as told, else as the environment says, else the best instruction set on all processors.

    Raises ConfigError where the library was not built or does not run `isa`.
    """
    library = load_library(path)
    if library is None:
        raise ConfigError("the CPU kernels were not built: install headrace where a C++ compiler is found")
    environment = read_cpu_environment()
    isa = isa or environment.isa or available_isas(path)[0]
    return Kernels(library, isa, num_threads or environment.num_threads or usable_threads())


def check(status: int, what: str) -> None:
    """Raise what a call of the library reported: ValueError for what it does not do, MemoryError."""
    if status == 1:
        raise ValueError(f"{what}: the CPU kernels do not do these shapes or dtypes")
    if status == 2:
        raise MemoryError(what)
