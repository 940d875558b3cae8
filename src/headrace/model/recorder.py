"""Learns a model's attention layers by watching one forward pass.

What a layer is (heads, sizes, window, soft cap, sinks) is read off its actual call, which every model makes with its
own numbers, instead of off config fields, which every model names in its own way. Each call is a layer of its own with
its own cache, so models that call attention twice per layer, or run a layer several times, need nothing special.

While it watches, the model runs under an attention implementation of its own, which is also known to transformers' mask
interface: the mask that arrives with a call leads back to the mask function, and that says how far the layer sees.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from headrace.errors import ModelNotSupported
from headrace.model.attention.interface import LayerSpec
from headrace.model.diagnosis import refusal
from headrace.model.reach import MaskFunction, Reach, reach_of

PROBE_NAME = "headrace_probe"
"""The name under which transformers knows the recorder's attention."""

_KNOWN_TENSORS = frozenset({"s_aux", "position_ids", "cache_position", "logits_to_keep"})
"""Tensor arguments of an attention call that are honoured, or that say nothing new."""


class Recorder:
    """Answers attention calls with plain causal attention over one short sequence, and takes notes.

    Attributes:
        calls: the module of each call, in order. layers: what each asked for; cache groups are not numbered yet.
    """

    def __init__(self, config: Any) -> None:
        """Start with nothing recorded; `config` is the model's."""
        self._config = config.get_text_config(decoder=True)
        self._masks: list[MaskFunction] = []
        self.calls: list[nn.Module] = []
        self.layers: list[LayerSpec] = []

    def make_mask(self, q_length: int, kv_length: int, function: MaskFunction) -> torch.Tensor:
        """A mask of ones, twos, …: its value says which function it was made from, also in a copy or a slice."""
        self._masks.append(function)
        return torch.full((1, 1, q_length, kv_length), float(len(self._masks)))

    def record(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        options: dict[str, Any],
    ) -> torch.Tensor:
        """Note one call: [T, H, D], [T, K, D], [T, K, E] → [T, H, E]."""
        _refuse_unknown(module, query, key, options)
        scale = options.get("scaling")
        reach = self._reach(module, mask, options)
        self.calls.append(module)
        self.layers.append(
            LayerSpec(
                index=len(self.layers),
                num_heads=query.shape[1],
                num_kv_heads=key.shape[1],
                key_dim=key.shape[2],
                value_dim=value.shape[2],
                scale=query.shape[2] ** -0.5 if scale is None else float(scale),
                window=reach.window,
                chunk=reach.chunk,
                softcap=options.get("softcap"),
                has_sinks=options.get("s_aux") is not None,
            )
        )
        q, k, v = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        return out[0].transpose(0, 1).contiguous()

    def _reach(self, module: nn.Module, mask: torch.Tensor | None, options: dict[str, Any]) -> Reach:
        """How far a call sees: what its mask says, and the window that it names."""
        window = options.get("sliding_window") or None
        reach = Reach() if mask is None else self._reach_of_mask(module, mask)
        windows = [int(w) for w in (window, reach.window) if w is not None]
        return Reach(min(windows, default=None), reach.chunk)

    def _reach_of_mask(self, module: nn.Module, mask: torch.Tensor) -> Reach:
        name = type(module).__name__
        number = float(mask.flatten()[0])
        if mask.dtype == torch.bool or not (mask == number).all() or not 1 <= number <= len(self._masks):
            raise ModelNotSupported(f"{name} makes an attention mask or bias of its own, which paging cannot follow")
        try:
            reach = reach_of(self._masks[int(number) - 1])
        except (IndexError, RuntimeError):
            return self._reach_by_config(module)  # a mask over this very batch (images, …), on top of the layer's type
        if reach is None:
            raise ModelNotSupported(f"{name} also attends to later tokens; headrace runs causal decoders")
        return reach

    def _reach_by_config(self, module: nn.Module) -> Reach:
        types = getattr(self._config, "layer_types", None)
        index = getattr(module, "layer_idx", None)
        kind = types[index] if types and index is not None and index < len(types) else None
        if kind == "sliding_attention":
            return Reach(window=self._config.sliding_window)
        if kind == "chunked_attention":
            return Reach(chunk=self._config.attention_chunk_size)
        return Reach()


def _refuse_unknown(module: nn.Module, query: torch.Tensor, key: torch.Tensor, options: dict[str, Any]) -> None:
    name = type(module).__name__
    if key.shape[0] != query.shape[0]:
        raise ModelNotSupported(f"{name} attends to other tokens than its own sequence (cross attention)")
    if query.shape[1] % key.shape[1]:
        raise ModelNotSupported(f"{name} has {query.shape[1]} query heads over {key.shape[1]} key heads")
    for option, value in options.items():
        if isinstance(value, torch.Tensor) and option not in _KNOWN_TENSORS:
            raise ModelNotSupported(f"{name} passes {option!r} to attention, which paged attention does not know")


def _probe_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The attention interface of transformers, while a model is recorded."""
    recorder: Any = module.headrace_recorder
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return recorder.record(module, q, k, v, attention_mask, options)[None], None


class _WithoutProducts(TorchFunctionMode):
    """Linear layers answer with their input's first feature: who calls attention, and how, is in no weight's value.

    So the weights, most of what a file holds, need not be read to learn the layers.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is not nn.functional.linear or len(args) < 2 or args[1].dim() != 2:
            return function(*args, **(kwargs or {}))
        x, weight = args[:2]
        return x[..., :1].expand(*x.shape[:-1], weight.shape[0]).contiguous()


def record(model: Any, run: Any) -> Recorder:
    """Run a model once under a recorder.

    Args:
        model: a transformers model. run: runs one short sequence through it.

    Returns:
        The recorder, with at least one layer.

    Raises:
        ModelNotSupported: its attention cannot be paged; says why.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    recorder = Recorder(model.config)

    def make_mask(*_: Any, q_length: int, kv_length: int, mask_function: MaskFunction, **__: Any) -> torch.Tensor:
        return recorder.make_mask(q_length, kv_length, mask_function)

    AttentionInterface.register(PROBE_NAME, _probe_attention)
    AttentionMaskInterface.register(PROBE_NAME, make_mask)
    modules = list(model.modules())
    for module in modules:
        module.headrace_recorder = recorder
    try:
        model.set_attn_implementation(PROBE_NAME)
        with torch.inference_mode(), _WithoutProducts():
            run()
    except ModelNotSupported as error:
        raise refusal(model, str(error)) from error
    finally:
        for module in modules:
            del module.headrace_recorder
    if not recorder.layers:
        raise refusal(
            model,
            "it does not compute attention through transformers' attention interface, which is how headrace gives a "
            "model its paged cache",
        )
    return recorder
