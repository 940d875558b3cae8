"""A model folder as a GGUF file, for llama.cpp. Version 3 of the format, as ggml's docs/gguf.md describes it.

::

    "GGUF", version, number of tensors, number of keys
    keys      name, type, value
    tensors   name, dimensions (innermost first), type, offset
    data      each tensor aligned to 32 bytes

Without a vocabulary: benchmarks speak in token ids.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from headrace.errors import ConfigError

_ALIGNMENT = 32
_UINT32, _FLOAT32, _STRING = 4, 6, 8
_F32, _BF16 = 0, 30
_FILE_TYPES = {"float32": 0, "bfloat16": 32}
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def convert(folder: Path, dtype: str) -> Path:
    """Write `model-DTYPE.gguf` into a folder with float32 weights, if it is not there yet; returns its path.

    Raises:
        ConfigError: the model is neither llama nor qwen3.
    """
    target = folder / f"model-{dtype}.gguf"
    if target.exists():
        return target
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] not in ("llama", "qwen3"):
        raise ConfigError(f"a model of type {config['model_type']!r} cannot be written as GGUF; llama and qwen3 can")
    unfinished = target.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        _write(file, _keys(config, dtype), list(_tensors(folder, config, dtype)))
    unfinished.rename(target)
    return target


def _keys(config: dict[str, Any], dtype: str) -> dict[str, str | int | float]:
    """What llama.cpp wants to know of the architecture."""
    kind = config["model_type"]
    return {
        "general.architecture": kind,
        "general.file_type": _FILE_TYPES[dtype],
        f"{kind}.vocab_size": config["vocab_size"],
        f"{kind}.block_count": config["num_hidden_layers"],
        f"{kind}.context_length": config["max_position_embeddings"],
        f"{kind}.embedding_length": config["hidden_size"],
        f"{kind}.feed_forward_length": config["intermediate_size"],
        f"{kind}.attention.head_count": config["num_attention_heads"],
        f"{kind}.attention.head_count_kv": config["num_key_value_heads"],
        f"{kind}.attention.key_length": config["head_dim"],
        f"{kind}.attention.value_length": config["head_dim"],
        f"{kind}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{kind}.rope.dimension_count": config["head_dim"],
        f"{kind}.rope.freq_base": float(config["rope_parameters"]["rope_theta"]),
        "tokenizer.ggml.model": "none",
    }


def _tensors(folder: Path, config: dict[str, Any], dtype: str) -> Iterator[tuple[str, int, npt.NDArray[Any]]]:
    """Name, type and data of each; matrices in `dtype`, vectors in float32, as llama.cpp keeps them."""
    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        for name in weights.keys():  # noqa: SIM118  # it is no mapping
            array = weights.get_tensor(name)
            if config["model_type"] == "llama" and ("q_proj" in name or "k_proj" in name):
                heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
                array = _interleave(array, heads)
            if array.ndim > 1 and dtype == "bfloat16":
                yield _ggml_name(name), _BF16, _to_bfloat16(array)
            else:
                yield _ggml_name(name), _F32, array


def _ggml_name(name: str) -> str:
    module = name.removesuffix(".weight")
    if not module.startswith("model.layers."):
        return f"{_NAMES[module]}.weight"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest]}.weight"


def _interleave(array: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Rows of a head from halves (transformers' rope) to pairs (llama.cpp's rope for llama)."""
    rows, columns = array.shape
    halves = array.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _to_bfloat16(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The upper half of each float32, rounded to even as torch does."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _write(file: BinaryIO, keys: dict[str, Any], tensors: list[tuple[str, int, npt.NDArray[Any]]]) -> None:
    file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)))
    for name, value in keys.items():
        file.write(_text(name) + _value(value))
    offset = 0
    for name, kind, array in tensors:
        shape = array.shape[::-1]
        file.write(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
        offset += _aligned(array.nbytes)
    file.write(bytes(_aligned(file.tell()) - file.tell()))
    for _, _, array in tensors:
        file.write(array.tobytes())
        file.write(bytes(_aligned(array.nbytes) - array.nbytes))


def _value(value: str | int | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    return struct.pack("<II", _UINT32, value)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
