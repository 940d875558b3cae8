"""How much memory a checkpoint's matrices take, from the headers of its files, before any of it is loaded."""

from __future__ import annotations

import json
import math
from pathlib import Path

_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Of safetensors' names for floating-point numbers."""


def matrix_bytes(folder: Path, item_bytes: int | None = None) -> int:
    """Bytes of all floating-point tensors of two dimensions and more in a folder's safetensors files.

    Args:
        folder: of the checkpoint; 0 where it holds no such files, or what is in them is not to be read.
        item_bytes: of one number once it is loaded; None: as in the file.
    """
    try:
        return sum(_matrix_bytes(path, item_bytes) for path in folder.glob("*.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
        return 0  # who loads the file says what is wrong with it


def _matrix_bytes(path: Path, item_bytes: int | None) -> int:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = [value for name, value in header.items() if name != "__metadata__"]
    return sum(
        math.prod(tensor["shape"]) * (item_bytes or _ITEM_BYTES[tensor["dtype"]])
        for tensor in tensors
        if len(tensor["shape"]) > 1 and tensor["dtype"] in _ITEM_BYTES
    )
