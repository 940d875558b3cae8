"""A transformers model whose attention reads and writes the paged cache; everything else is its own code.

What its attention asks for is recorded in one forward pass (`recorder`); that the whole gives the model's own logits is
proven before it serves (`proof`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from headrace.errors import ModelNotSupported
from headrace.model.attention.context import PagedContext
from headrace.model.attention.interface import LayerSpec
from headrace.model.attention.op import (
    IMPLEMENTATION_NAME,
    AttentionTag,
    register_context,
    register_with_transformers,
)
from headrace.model.attention.registry import choose
from headrace.model.batch import StepInputs
from headrace.model.compilation import compile_layers, forget_compiled
from headrace.model.kernels.library import Kernels
from headrace.model.loader import LoadedModel
from headrace.model.own_attention import OwnAttention
from headrace.model.recorder import record

_PROBE_TOKENS = 5


class PagedModel:
    """The forward pass of one engine.

    While it is open, the model's attention belongs to headrace; `close` gives the model back as it was.

    Args:
        loaded: the model. attention: implementation by name, or "auto".

    Attributes:
        loaded: the model. layers: its attention layers. context: their cache. vocab_size: columns of its logits.
        ends_in_kept_rows: whether the last layer leaves out the tokens whose logits are not wanted.

    Raises:
        ModelNotSupported: the model's class and the reason. ConfigError: the attention does not serve it.
    """

    def __init__(self, loaded: LoadedModel, attention: str) -> None:
        """Learn the model's attention layers and wire them; cache tensors come with `context.allocate`."""
        self.loaded = loaded
        self._model = loaded.model
        self._accepted = _accepted_options(self._model)
        self._own_attention = OwnAttention(self._model)
        self._tags: dict[Any, AttentionTag] = {}
        self._compiled: list[Any] = []
        self._at_close: list[Callable[[], None]] = []
        self._closed = False
        self.ends_in_kept_rows = False
        try:
            self.layers, calls = self._learn()
            self.context = PagedContext(choose(attention, self.layers, loaded.dtype, loaded.device), self.layers)
            self._wire(calls, register_context(self.context))
        except BaseException:
            self.close()
            raise

    @property
    def kernels(self) -> Kernels | None:
        """The CPU kernels that its attention runs on; None where it runs on others."""
        found = getattr(self.context.implementation, "kernels", None)
        return found if isinstance(found, Kernels) else None

    def _learn(self) -> tuple[list[LayerSpec], list[Any]]:
        """The layers, cache groups numbered, and the module of each. Full attention, where there is any, is group 0."""
        if any(hasattr(module, "headrace_tag") for module in self._model.modules()):
            raise ModelNotSupported(
                f"this {type(self._model).__name__} object is in use by another headrace engine; close that first"
            )
        positions = torch.arange(_PROBE_TOKENS, device=self.loaded.device)[None]
        ids, first = positions % self.loaded.vocab_size, positions[0, :1]
        found: list[torch.Tensor] = []
        recorder = record(self._model, lambda: found.append(self.raw_forward(ids, positions, first)))
        self.vocab_size = found[0].shape[-1]
        reaches = sorted({(layer.window or 0, layer.chunk or 0) for layer in recorder.layers})
        layers = [
            replace(layer, group=reaches.index((layer.window or 0, layer.chunk or 0))) for layer in recorder.layers
        ]
        return layers, recorder.calls

    def _wire(self, calls: Sequence[Any], handle: int) -> None:
        for layer, module in enumerate(calls):
            tag = self._tags.setdefault(module, AttentionTag(handle))
            tag.layers.append(layer)
            module.headrace_tag = tag
        register_with_transformers()
        self._model.set_attn_implementation(IMPLEMENTATION_NAME)

    def compile(self, mode: str) -> None:
        """Compile the decoder layers; the code is made at their next calls. ConfigError for an unknown mode."""
        self._compiled = compile_layers(self._model, self._tags, mode, dynamic=True)

    def forward(self, inputs: StepInputs, rows: Sequence[int] | torch.Tensor | None) -> torch.Tensor:
        """Logits [len(rows), V] of the tokens at indices `rows` of the packed step, [T, V] of all for None."""
        for tag in self._tags.values():
            tag.next_call = 0
        kept = self._tokens(rows, inputs.input_ids)
        with torch.inference_mode(), self.context.step(inputs.batches, kept if self.ends_in_kept_rows else None):
            return self.raw_forward(inputs.input_ids, inputs.position_ids, None if self.ends_in_kept_rows else kept)

    @staticmethod
    def _tokens(rows: Sequence[int] | torch.Tensor | None, input_ids: torch.Tensor) -> torch.Tensor | None:
        """Tokens whose logits are wanted, on the device (those of the host are waited for); None: all, in order."""
        if rows is None or isinstance(rows, torch.Tensor):
            return rows
        num_tokens = input_ids.shape[1]
        if len(rows) == num_tokens and all(i == row for i, row in enumerate(rows)):
            return None
        return torch.tensor(list(rows), dtype=torch.int64, device=input_ids.device)

    def raw_forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, kept: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The model's own forward under whatever attention is set: ids, positions [1, T] → logits [T or kept, V]."""
        options: dict[str, Any] = {"position_ids": position_ids, "use_cache": False}
        if kept is not None and "logits_to_keep" in self._accepted:
            options["logits_to_keep"] = kept
        logits: torch.Tensor = self._model(input_ids=input_ids, **options).logits[0]
        return logits if kept is None or "logits_to_keep" in options else logits[kept]

    def own_logits(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Logits [T, V] that the model gives with its own attention, for one sequence from position 0."""
        ids = torch.tensor([list(token_ids)], device=self.loaded.device)
        self._own_attention.restore()
        try:
            with torch.inference_mode():
                return self.raw_forward(ids, torch.arange(ids.shape[1], device=ids.device)[None])
        finally:
            self._model.set_attn_implementation(IMPLEMENTATION_NAME)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Have `close` call this before it gives the model back; the callback added last is called first."""
        self._at_close.append(callback)

    def close(self) -> None:
        """Give the model back with its own attention; harmless when repeated."""
        if self._closed:  # by now the model may belong to another engine
            return
        self._closed = True
        for callback in reversed(self._at_close):
            callback()
        forget_compiled(self._compiled)
        for module in self._tags:
            if hasattr(module, "headrace_tag"):
                del module.headrace_tag
        self._own_attention.restore()
        if hasattr(self, "context"):
            self.context.release()


def _accepted_options(model: Any) -> frozenset[str]:
    """Names of the forward's parameters; refuses models that cannot be fed packed sequences."""
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelNotSupported(f"{name} is an encoder-decoder; headrace runs decoders")
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    if "position_ids" not in parameters and not takes_any:
        raise ModelNotSupported(
            f"{name} takes no position_ids, so requests cannot be packed into one sequence with their own positions"
        )
    return frozenset(parameters)
