"""What of a model runs on the CPU kernels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from transformers import PreTrainedModel

from headrace.model.loader import load
from headrace.model.paged_model import PagedModel
from headrace.model.surgery.proven import operate_and_prove

KINDS = {
    "layer": "layers",
    "attention": "attention",
    "mlp": "feed-forward",
    "experts": "experts",
    "norm": "norms",
    "linear": "linears",
    "product": "routers",
}
"""Of replaced modules, as surgery calls them and as the page does."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """How many modules of each kind were replaced, and how many that were tried stay the model's own.

    Attributes:
        num_layers: attention layers of the model.
    """

    num_layers: int
    fused: dict[str, int]
    kept: dict[str, int]

    @property
    def is_full(self) -> bool:
        """Whether every decoder layer runs on the kernels, with its attention and its feed-forward block or experts."""
        blocks = self.fused.get("mlp", 0) + self.fused.get("experts", 0)
        by_kind = (self.fused.get("layer", 0), self.fused.get("attention", 0), blocks)
        return not self.kept and all(count >= self.num_layers for count in by_kind)

    def __str__(self) -> str:
        """For the page: `all`, or the kinds with their numbers, and what stays."""
        if self.is_full:
            return "all"
        fused = [f"{name} {self.fused[kind]}" for kind, name in KINDS.items() if self.fused.get(kind)]
        kept = [f"{KINDS.get(kind, kind)} {count}" for kind, count in self.kept.items()]
        return (", ".join(fused) or "nothing") + (f"; not {', '.join(kept)}" if kept else "")


def fusion_of(model: PreTrainedModel) -> Fusion | None:
    """Try it; None where the kernels were not built, or do not run this model at all."""
    paged = PagedModel(load(model, dtype="auto", device="cpu"), "auto")
    try:
        _, report = operate_and_prove(paged)
        num_layers = len(paged.layers)
    finally:
        paged.close()
    if report is None:
        return None
    fused: Counter[str] = Counter()
    for (kind, _), count in report.fused.items():
        fused[kind] += count
    kept: Counter[str] = Counter()
    for (kind, _, _), count in report.dropped.items():
        kept[kind] += count
    return Fusion(num_layers, dict(fused), dict(kept))
