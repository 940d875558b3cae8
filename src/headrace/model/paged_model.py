"""A transformers model whose attention reads and writes the paged cache; everything else is its own code.

Loading it proves it: what its attention asks for is recorded in one forward pass (`recorder`), and the logits of packed,
chunked and decoded tokens are compared with the model's own on the same tokens (`proof`). A model that differs is
refused with the figure.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from headrace.errors import ModelNotSupported
from headrace.model.attention.context import PagedContext
from headrace.model.attention.interface import AttentionImplementation
from headrace.model.attention.op import (
    IMPLEMENTATION_NAME,
    AttentionTag,
    register_context,
    register_with_transformers,
    replace_context,
)
from headrace.model.batch import StepInputs
from headrace.model.loader import LoadedModel
from headrace.model.recorder import Recorder, record_layers


class PagedModel:
    """The forward pass of one engine.

    While it is open, the model's attention belongs to headrace; `close` gives the model back as it was.

    Attributes:
        loaded: the model. layers: its attention layers. context: their cache. vocab_size: columns of its logits.

    Raises:
        ModelNotSupported: the model's class and the reason.
    """

    def __init__(self, loaded: LoadedModel, implementation: AttentionImplementation) -> None:
        """Wire the model and learn its attention layers; cache tensors come with `context.allocate`."""
        self.loaded = loaded
        self._model = loaded.model
        self._parameters = _check_forward(self._model)
        self._original = self._model.config._attn_implementation
        self._tagged: list[Any] = []
        recorder = Recorder(self._model.config)
        self._handle = register_context(recorder)
        try:
            self._switch_attention(recorder)
            self.layers, self.vocab_size = record_layers(self, recorder)
        except BaseException:
            self.close()
            raise
        self.context = PagedContext(implementation, self.layers)
        replace_context(self._handle, self.context)
        for module, layer in zip(recorder.modules, self.layers, strict=True):
            tag: Any = module.headrace_tag
            tag.layer, tag.recorder = layer.index, None

    def _switch_attention(self, recorder: Recorder) -> None:
        register_with_transformers()
        for module in self._model.modules():
            if hasattr(module, "headrace_tag"):
                raise ModelNotSupported(
                    f"this {type(self._model).__name__} object is in use by another headrace engine; close that first"
                )
        for module in self._model.modules():
            module.headrace_tag = AttentionTag(self._handle, recorder)
            self._tagged.append(module)
        self._model.set_attn_implementation(IMPLEMENTATION_NAME)
        if self._model.config.get_text_config(decoder=True)._attn_implementation != IMPLEMENTATION_NAME:
            raise ModelNotSupported(
                f"{type(self._model).__name__} does not support transformers' attention interface, through which "
                "headrace gives a model its paged cache"
            )

    def forward(self, inputs: StepInputs, rows: Sequence[int]) -> torch.Tensor:
        """Logits [len(rows), V] of the tokens at indices `rows` of the packed step."""
        with torch.inference_mode(), self.context.step(inputs.batches):
            return self.raw_forward(inputs.input_ids, inputs.position_ids, rows)

    def raw_forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """The model's own forward under whatever attention is set: ids, positions [1, T] → logits [len(rows), V]."""
        keep = torch.tensor(list(rows), dtype=torch.int64, device=input_ids.device)
        options: dict[str, Any] = {"position_ids": position_ids, "use_cache": False, "logits_to_keep": keep}
        options = {name: value for name, value in options.items() if name in self._parameters}
        logits: torch.Tensor = self._model(input_ids=input_ids, **options).logits[0]
        return logits if "logits_to_keep" in options else logits[keep]

    def own_logits(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Logits [T, V] that the model gives with its own attention, for one sequence from position 0."""
        ids = torch.tensor([list(token_ids)], device=self.loaded.device)
        self._model.set_attn_implementation(self._original)
        try:
            with torch.inference_mode():
                return self.raw_forward(ids, torch.arange(ids.shape[1], device=ids.device)[None], range(ids.shape[1]))
        finally:
            self._model.set_attn_implementation(IMPLEMENTATION_NAME)

    def close(self) -> None:
        """Give the model back with its own attention; harmless when repeated."""
        for module in self._tagged:
            if hasattr(module, "headrace_tag"):
                del module.headrace_tag
        if self._tagged:
            self._model.set_attn_implementation(self._original)
        self._tagged = []
        if hasattr(self, "context"):
            self.context.release()


def _check_forward(model: Any) -> frozenset[str]:
    """Names of the forward's parameters; refuses models that cannot be fed packed sequences."""
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelNotSupported(f"{name} is an encoder-decoder; headrace runs decoders")
    parameters = frozenset(inspect.signature(model.forward).parameters)
    if "position_ids" not in parameters:
        raise ModelNotSupported(
            f"{name} takes no position_ids, so requests cannot be packed into one sequence with their own positions"
        )
    return parameters
