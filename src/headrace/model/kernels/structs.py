"""The structs of csrc/headrace.h, field by field, for ctypes."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p


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


class OperationStruct(Structure):
    """hr_operation."""

    _fields_ = (
        ("op", c_int32),
        ("x", c_int32),
        ("y", c_int32),
        ("residual", c_int32),
        ("args", c_void_p),
        ("column", c_int64),
        ("scale", c_float),
        ("activation", c_int32),
        ("is_taken", c_int32),
    )


class ProgramStruct(Structure):
    """hr_program."""

    _fields_ = (
        ("operations", POINTER(OperationStruct)),
        ("widths", POINTER(c_int64)),
        ("num_operations", c_int32),
        ("num_values", c_int32),
        ("num_outside", c_int32),
        ("dtype", c_int32),
    )


class StepStruct(Structure):
    """hr_step."""

    _fields_ = (
        ("cache", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("angle_stride", c_int64),
        ("slots", c_void_p),
        ("query_start", c_void_p),
        ("context_len", c_void_p),
        ("block_table", c_void_p),
        ("block_table_stride", c_int64),
        ("num_tokens", c_int64),
        ("kept", c_void_p),
        ("num_kept", c_int64),
        ("num_rows", c_int32),
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
