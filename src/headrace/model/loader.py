"""From a folder, a hub id, `builtin` or a model object to a transformers model that is ready to be wired."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headrace import assets
from headrace.errors import ConfigError, ModelNotSupported
from headrace.model.kernels.library import load_library
from headrace.model.reserve import Reserve

BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A transformers model and what its files say about generating with it.

    Attributes:
        model: in evaluation mode, on `device`, with weights of `dtype`.
        source: folder or hub id of the tokenizer; None for a model object.
        owned: whether headrace loaded it (and may drop it), or it was handed in.
        eos_token_ids: ids that end a text. vocab_size: rows of the logits.
        max_model_len: positions that the model was made for.
        reserve: memory for its weights in panels, where they will be packed; close it when they are.
    """

    model: Any
    source: str | None
    owned: bool
    eos_token_ids: frozenset[int]
    vocab_size: int
    max_model_len: int
    device: torch.device
    dtype: torch.dtype
    reserve: Reserve | None = None


def load(
    model: Any,
    *,
    dtype: str,
    device: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    reserve: Reserve | None = None,
) -> LoadedModel:
    """Load a model through transformers.

    Args:
        model: folder, hub id, "builtin", or a PreTrainedModel, which is used where it is, as it is.
        dtype: "auto" (the checkpoint's), or a torch dtype's name. device: "auto", or a torch device.
        revision: of the hub id. trust_remote_code: run modeling code that comes with the checkpoint.
        reserve: memory for its weights in panels, the LoadedModel's from now on; closed where nothing can be packed, or
            loaded.

    Raises:
        ModelNotSupported: it is no decoder that transformers can load. ConfigError: the device is not there.
    """
    if not isinstance(model, str | Path):
        return _describe(_check_object(model), None, owned=False)
    source = str(assets.path(BUILTIN)) if str(model) == BUILTIN else str(model)
    try:
        target = resolve_device(device)
        if reserve is not None and (target.type != "cpu" or load_library() is None):
            reserve.close()
        loaded = _from_pretrained(source, dtype, revision, trust_remote_code)
        return replace(_describe(loaded.to(target), source, owned=True), reserve=reserve)
    except BaseException:
        if reserve is not None:
            reserve.close()
        raise


def resolve_device(device: str) -> torch.device:
    """The torch device of a setting; "auto" is CUDA where there is one. Raises ConfigError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device!r} is not a torch device; 'cpu', 'cuda' or 'cuda:0' is") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={device!r}, but torch sees {torch.cuda.device_count()} CUDA devices here")
    return target


def resolve_dtype(name: str) -> torch.dtype:
    """The torch dtype of that name. Raises ConfigError."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(f"dtype={name!r} is not a torch dtype; 'float32' or 'bfloat16' is")
    return dtype


def _check_object(model: Any) -> Any:
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise ModelNotSupported(
            f"a model must be a folder, a hub id, {BUILTIN!r} or a transformers PreTrainedModel, not "
            f"{type(model).__name__}"
        )
    return model.eval()


def _from_pretrained(source: str, dtype: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    options: dict[str, Any] = {"dtype": dtype if dtype == "auto" else resolve_dtype(dtype)}
    if revision is not None:
        options["revision"] = revision
    showed_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one for every load of local files is noise; downloads keep their own
    try:
        return AutoModelForCausalLM.from_pretrained(source, trust_remote_code=trust_remote_code, **options).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotSupported(f"transformers cannot load {source!r} as a decoder: {error}") from error
    finally:
        if showed_bars:
            logging.enable_progress_bar()


def _describe(model: Any, source: str | None, owned: bool) -> LoadedModel:
    config = model.config.get_text_config(decoder=True)
    weight = next(model.parameters())
    return LoadedModel(
        model,
        source,
        owned,
        _eos_token_ids(model),
        int(config.vocab_size),
        _max_model_len(config),
        weight.device,
        weight.dtype if weight.dtype.is_floating_point else torch.get_default_dtype(),
    )


def _eos_token_ids(model: Any) -> frozenset[int]:
    """The generation config's ids; the model config's where it has none."""
    for config in (getattr(model, "generation_config", None), model.config):
        ids = getattr(config, "eos_token_id", None)
        if ids is not None:
            return frozenset(ids if isinstance(ids, list | tuple) else [ids])
    return frozenset()


def _max_model_len(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return 2048
