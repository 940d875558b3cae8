"""Learns a model's attention layers by watching one forward pass.

What a layer is (heads, sizes, window, soft cap, sinks) is read off its actual call, which every model makes with its
own numbers, instead of off config fields, which every model names in its own way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headrace.errors import ModelNotSupported
from headrace.model.attention.interface import LayerSpec

if TYPE_CHECKING:
    from headrace.model.paged_model import PagedModel

_PROBE_TOKENS = 5


class Recorder:
    """Answers attention calls with plain causal attention over one short sequence, and takes notes.

    Attributes:
        modules: attention modules in the order of their calls. layers: what each asked for.
    """

    def __init__(self, config: Any) -> None:
        """Start with nothing recorded; `config` is the model's."""
        self._config = config.get_text_config(decoder=True)
        self.modules: list[nn.Module] = []
        self.layers: list[LayerSpec] = []

    def record(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        options: dict[str, Any],
    ) -> torch.Tensor:
        """Note one call: [T, H, D], [T, K, D], [T, K, E] → [T, H, E]."""
        self._refuse(module, query, key, attention_mask, options)
        scale = options.get("scaling")
        window, chunk = self._reach(module, options)
        self.modules.append(module)
        self.layers.append(
            LayerSpec(
                index=len(self.layers),
                num_heads=query.shape[1],
                num_kv_heads=key.shape[1],
                key_dim=key.shape[2],
                value_dim=value.shape[2],
                scale=query.shape[2] ** -0.5 if scale is None else float(scale),
                window=window,
                chunk=chunk,
                softcap=options.get("softcap"),
                has_sinks=options.get("s_aux") is not None,
            )
        )
        q, k, v = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
        out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        return out[0].transpose(0, 1).contiguous()

    def attend(self, *_: Any) -> torch.Tensor:
        """Never called: untagged layers go through `record`."""
        raise RuntimeError("attention through the op before the model's layers are known")

    def _reach(self, module: nn.Module, options: dict[str, Any]) -> tuple[int | None, int | None]:
        """Sliding window and chunk of a layer: from the call where it says so, else from the config's layer types."""
        window = options.get("sliding_window")
        types = getattr(self._config, "layer_types", None)
        index = getattr(module, "layer_idx", None)
        kind = types[index] if types and index is not None and index < len(types) else None
        if not window and kind == "sliding_attention":
            window = getattr(self._config, "sliding_window", None)
        chunk = getattr(self._config, "attention_chunk_size", None) if kind == "chunked_attention" else None
        return (int(window) if window else None), (int(chunk) if chunk else None)

    def _refuse(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        attention_mask: torch.Tensor | None,
        options: dict[str, Any],
    ) -> None:
        name = type(module).__name__
        if module in self.modules:
            raise ModelNotSupported(f"{name} computes attention more than once per layer")
        if key.shape[0] != query.shape[0]:
            raise ModelNotSupported(f"{name} attends to other tokens than its own sequence (cross attention)")
        if query.shape[1] % key.shape[1]:
            raise ModelNotSupported(f"{name} has {query.shape[1]} query heads over {key.shape[1]} key heads")
        if attention_mask is not None:
            raise ModelNotSupported(f"{name} brings its own attention mask or bias, which a paged cache cannot follow")
        if options.get("position_bias") is not None:
            raise ModelNotSupported(f"{name} adds a position bias to the scores, which paged attention does not know")


def record_layers(model: PagedModel, recorder: Recorder) -> tuple[list[LayerSpec], int]:
    """Run one short sequence through the model; returns its layers, cache groups numbered, and the logits' size V.

    Layers with the same reach (window, chunk) form a group; full attention, where there is any, is group 0.
    """
    device = model.loaded.device
    ids = (torch.arange(_PROBE_TOKENS, device=device) % model.loaded.vocab_size)[None]
    with torch.inference_mode():
        logits = model.raw_forward(ids, torch.arange(_PROBE_TOKENS, device=device)[None], [_PROBE_TOKENS - 1])
    name = type(model.loaded.model).__name__
    config = model.loaded.model.config.get_text_config(decoder=True)
    if not recorder.layers:
        raise ModelNotSupported(f"{name} made no call to transformers' attention interface: nothing to page")
    if len(recorder.layers) < config.num_hidden_layers:
        raise ModelNotSupported(
            f"{name} has {config.num_hidden_layers} layers, {len(recorder.layers)} of them with attention; the others "
            "keep a state (linear attention, state space, convolution) that has no blocks to page"
        )
    reaches = sorted({(layer.window or 0, layer.chunk or 0) for layer in recorder.layers})
    layers = [replace(layer, group=reaches.index((layer.window or 0, layer.chunk or 0))) for layer in recorder.layers]
    return layers, logits.shape[-1]
