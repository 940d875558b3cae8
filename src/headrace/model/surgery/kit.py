"""What replaced modules run on, by device: a kit for the CPU kernels, one for Triton's (`triton_kit`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.kernels import rows
from headrace.model.kernels.library import Kernels
from headrace.model.kernels.linear import Activation
from headrace.model.kernels.paged import Rotation, rotate_and_write

if TYPE_CHECKING:
    from headrace.model.surgery.norm import Norm


class Matrix(Protocol):
    """Weights that a lease packed, as `PackedLinear` multiplies by them."""

    def __call__(
        self,
        x: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        activation: Activation = Activation.IDENTITY,
    ) -> torch.Tensor:
        """Multiply x [M, K]: activation(x · wᵀ + bias) + residual, or activation(gate) · up + residual."""
        ...


class AttendingApart(Protocol):
    """An attention implementation that also attends where keys and values are in the cache already."""

    def attend(
        self, query: torch.Tensor, sinks: torch.Tensor | None, layer: LayerSpec, cache: Any, batch: AttentionBatch
    ) -> torch.Tensor:
        """Attention of query [T, H, D]; returns [T, H, E]."""
        ...


class AddsAndNorms(Protocol):
    """A kit that runs layers a call per operation, and does a sum together with the norm after it."""

    def add_norm(self, x: torch.Tensor, residual: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum x + residual [M, n], and its norm."""
        ...


class Kit(Protocol):
    """The operations beside products.

    Attributes:
        attention_name: the `AttendingApart` implementation whose cache `rotate_and_write` writes.
        replaces_single_matrices: whether linear layers, routers, experts and tied embeddings gain by it; where they do
            not, they stay the model's own.
        runs_programs: whether a whole layer can run in one call (`layer_program`).
    """

    attention_name: str
    replaces_single_matrices: bool
    runs_programs: bool

    def norm(self, x: torch.Tensor, norm: Norm, out: torch.Tensor | None = None) -> torch.Tensor:
        """The norm of rows [M, n]; out may be x."""
        ...

    def rotate_and_write(
        self, cache: Any, rotation: Rotation, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
        slots: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """As `kernels.paged.rotate_and_write`."""
        ...


class CpuKit:
    """The CPU kernels."""

    attention_name = "cpu"
    replaces_single_matrices = True
    runs_programs = True

    def __init__(self, kernels: Kernels) -> None:
        """On these kernels."""
        self._kernels = kernels

    def norm(self, x: torch.Tensor, norm: Norm, out: torch.Tensor | None = None) -> torch.Tensor:
        """The norm of rows [M, n]; out may be x."""
        return rows.norm(
            self._kernels, x, norm.weight, norm.eps,
            bias=norm.bias, centered=norm.centered, offset=norm.offset, out=out,
        )  # fmt: skip

    def rotate_and_write(
        self, cache: Any, rotation: Rotation, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
        slots: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Queries as a view of qkv."""
        return rotate_and_write(self._kernels, cache, rotation, qkv, cos, sin, slots)
