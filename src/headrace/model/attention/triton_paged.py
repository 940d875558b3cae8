"""Paged attention through Triton kernels: on CUDA devices, and for tests on the CPU in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from headrace.errors import ConfigError
from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.triton_kernels.launch_plan import BatchShape, LaunchPlan, Planner, plan_launch

if TYPE_CHECKING:
    from headrace.model.triton_kernels.paged import PagedCache

_MAX_DIM = 256
_TRIAL_BLOCK_SIZE = 32  # the engine's own default, so that what a trial compiles is of use


class TritonAttention:
    """One launch for the single-token rows (and one to merge their splits), one for the others.

    float32, bfloat16 and float16; head sizes up to 256, keys' and values' apart; every feature of `LayerSpec`.

    Raises:
        ConfigError: triton is not installed.
    """

    name = "triton"
    mixes_dtypes = True

    def __init__(self, planner: Planner = plan_launch) -> None:
        """`planner` chooses the launches; the benchmark passes others."""
        try:
            from headrace.model.triton_kernels import paged
            from headrace.model.triton_kernels.device.language import INTERPRETED
        except ImportError as error:
            raise ConfigError(
                "attn_implementation='triton' needs the triton package; PyTorch's CUDA builds bring it"
            ) from error
        self._kernels = paged
        self.is_interpreted = bool(INTERPRETED)
        self._planner = planner
        self._num_sms = 1  # the interpreter's

    def refusal(self, layers: Sequence[LayerSpec], dtype: torch.dtype, device: torch.device) -> str | None:
        """Serves CUDA devices, or where Triton interprets the CPU; three dtypes, head sizes up to 256.

        Its kernels are tried: a device with less memory in its multiprocessors than they were made for refuses them.
        """
        if device.type == "cpu" and not self.is_interpreted:
            return "it runs on CUDA devices; on the CPU only in Triton's interpreter (TRITON_INTERPRET=1)"
        if device.type not in ("cpu", "cuda"):
            return f"it runs on CUDA devices, not on {device}"
        if dtype not in self._kernels.DTYPES:
            return f"it does float32, bfloat16 and float16, not {dtype}"
        large = [dim for layer in layers for dim in (layer.key_dim, layer.value_dim) if dim > _MAX_DIM]
        if large:
            return f"it does head sizes up to {_MAX_DIM}, not {large[0]}"
        for layer in dict.fromkeys(replace(layer, index=0, group=0) for layer in layers):
            try:
                self._try(layer, dtype, device)
            except Exception as error:  # of Triton's compiler, its launcher or the device: whatever it is, it refuses
                return f"its kernels do not run here: {type(error).__name__}: {error}"
        return None

    def _try(self, layer: LayerSpec, dtype: torch.dtype, device: torch.device) -> None:
        """One decode and one chunk of two tokens."""
        cache = self.allocate(layer, 2, _TRIAL_BLOCK_SIZE, dtype, device)
        first, second = 0, _TRIAL_BLOCK_SIZE  # slots at which the blocks begin

        def ints(*values: int) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int32, device=device)

        batch = AttentionBatch(
            query_lens=[1, 2],
            context_lens=[1, 2],
            num_decodes=1,
            query_start=ints(0, 1, 3),
            context_len=ints(1, 2),
            slot_mapping=ints(first, second, second + 1).long(),
            block_table=ints(0, 1)[:, None],
            block_size=_TRIAL_BLOCK_SIZE,
        )
        query = torch.zeros(3, layer.num_heads, layer.key_dim, dtype=dtype, device=device)
        key = torch.zeros(3, layer.num_kv_heads, layer.key_dim, dtype=dtype, device=device)
        value = torch.zeros(3, layer.num_kv_heads, layer.value_dim, dtype=dtype, device=device)
        sinks = torch.zeros(layer.num_heads, device=device) if layer.has_sinks else None
        self.forward(query, key, value, sinks, layer, cache, batch)

    def allocate(
        self, layer: LayerSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> PagedCache:
        """Make one layer's zeroed cache."""
        if device.type == "cuda":
            self._num_sms = torch.cuda.get_device_properties(device).multi_processor_count
        shape = (num_blocks, layer.num_kv_heads, block_size)
        return self._kernels.PagedCache(
            keys=torch.zeros(*shape, layer.key_dim, dtype=dtype, device=device),
            values=torch.zeros(*shape, layer.value_dim, dtype=dtype, device=device),
        )

    def zero_blocks(self, cache: PagedCache, blocks: torch.Tensor) -> None:
        """Zero the given blocks (int64 ids) of one layer's cache."""
        cache.keys.index_fill_(0, blocks, 0)
        cache.values.index_fill_(0, blocks, 0)

    def prepare(self, batch: AttentionBatch, layers: list[LayerSpec]) -> None:
        """Nothing: launches are chosen from shapes, and everything else is read on the device."""

    def graph_values(self, batch: AttentionBatch) -> Hashable:
        """Every host value that the launches for a batch depend on; a captured graph serves batches of equal values.

        Not among them: lengths of contexts. `context_len`, `query_start`, `slot_mapping` and the block table's entries
        are read on the device, so at replay the same tensors may hold any others. Rows for padding: context_len 0 and
        slot -1 (nothing is read or written, the result is 0), or any context of blocks that nobody needs.
        """
        return self._kernels.shape_of(batch)

    def plan(self, layer: LayerSpec, shape: BatchShape, itemsize: int) -> LaunchPlan:
        """The launches for one layer."""
        return self._planner(layer, shape, itemsize, self._num_sms)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        layer: LayerSpec,
        cache: PagedCache,
        batch: AttentionBatch,
    ) -> torch.Tensor:
        """Write key [T, K, D] and value [T, K, E] to the cache, attend with query [T, H, D]; return [T, H, E]."""
        self.write(cache, key, value, batch.slot_mapping)
        return self.attend(query, sinks, layer, cache, batch)

    def write(self, cache: PagedCache, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """Write key [T, K, D] and value [T, K, E] to slots int64 [T]; a negative slot is left out."""
        self._kernels.write(cache, key, value, slots)

    def attend(
        self,
        query: torch.Tensor,
        sinks: torch.Tensor | None,
        layer: LayerSpec,
        cache: PagedCache,
        batch: AttentionBatch,
    ) -> torch.Tensor:
        """The same where keys and values are in the cache already."""
        plan = self.plan(layer, self._kernels.shape_of(batch), cache.dtype.itemsize)
        return self._kernels.attend(query, sinks, layer, cache, batch, plan)
