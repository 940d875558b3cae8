"""Finds the compiled library, opens it for one instruction set, and declares its C interface to ctypes."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

from headrace.config.environment import read_cpu_environment
from headrace.errors import ConfigError
from headrace.observability.machine import usable_threads

ABI = 2
LIBRARY_PATH = Path(__file__).with_name("libheadrace.so")

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class MatrixStruct(Structure):
    """hr_matrix."""

    _fields_ = (
        ("data", c_void_p),
        ("bias", c_void_p),
        ("n", c_int64),
        ("k", c_int64),
        ("dtype", c_int32),
        ("gated", c_int32),
    )


class CacheStruct(Structure):
    """hr_cache."""

    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("dtype", c_int32),
        ("num_kv_heads", c_int32),
        ("key_dim", c_int32),
        ("value_dim", c_int32),
        ("block_size", c_int32),
    )


class AttentionStruct(Structure):
    """hr_attention."""

    _fields_ = (
        ("cache", c_void_p),
        ("query", c_void_p),
        ("query_token_stride", c_int64),
        ("query_head_stride", c_int64),
        ("out", c_void_p),
        ("out_token_stride", c_int64),
        ("out_head_stride", c_int64),
        ("sinks", c_void_p),
        ("query_start", c_void_p),
        ("context_len", c_void_p),
        ("block_table", c_void_p),
        ("block_table_stride", c_int64),
        ("num_rows", c_int32),
        ("num_heads", c_int32),
        ("window", c_int32),
        ("chunk", c_int32),
        ("scale", c_float),
        ("softcap", c_float),
    )


class RopeStruct(Structure):
    """hr_rope."""

    _fields_ = (
        ("cache", c_void_p),
        ("query", c_void_p),
        ("query_stride", c_int64),
        ("key", c_void_p),
        ("key_stride", c_int64),
        ("value", c_void_p),
        ("value_stride", c_int64),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("angle_stride", c_int64),
        ("slots", c_void_p),
        ("num_tokens", c_int64),
        ("num_heads", c_int32),
        ("angle_step", c_int32),
        ("rotary_dim", c_int32),
        ("interleaved", c_int32),
        ("norm_eps", c_float),
        ("norm_offset", c_float),
    )


class NormStruct(Structure):
    """hr_norm_args."""

    _fields_ = (
        ("x", c_void_p),
        ("x_stride", c_int64),
        ("residual", c_void_p),
        ("residual_stride", c_int64),
        ("out", c_void_p),
        ("out_stride", c_int64),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("m", c_int64),
        ("n", c_int64),
        ("dtype", c_int32),
        ("centered", c_int32),
        ("eps", c_float),
        ("offset", c_float),
    )


class ExpertsStruct(Structure):
    """hr_experts_args."""

    _fields_ = (
        ("inner", c_void_p),
        ("down", c_void_p),
        ("x", c_void_p),
        ("x_stride", c_int64),
        ("y", c_void_p),
        ("y_stride", c_int64),
        ("index", c_void_p),
        ("weights", c_void_p),
        ("num_tokens", c_int64),
        ("num_experts", c_int64),
        ("k", c_int64),
        ("dtype", c_int32),
        ("activation", c_int32),
    )


class DrawStruct(Structure):
    """hr_draw_args."""

    _fields_ = (
        ("logits", c_void_p),
        ("stride", c_int64),
        ("n", c_int64),
        ("m", c_int64),
        ("rows", c_void_p),
        ("uniform", c_void_p),
        ("sharpness", c_void_p),
        ("top_k", c_void_p),
        ("top_p", c_void_p),
        ("min_p", c_void_p),
        ("out", c_void_p),
        ("dtype", c_int32),
        ("shortlist", c_int32),
    )


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
