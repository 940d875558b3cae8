"""What of a model runs on the CPU kernels: all of the models that issue 3 names, and the page tells the rest."""

from __future__ import annotations

import pytest
from tools.model_table.fusion import Fusion, fusion_of
from tools.model_table.tiny_configs import make_model
from torch import nn

from headrace.model.kernels.library import load_library
from headrace.model.loader import load
from headrace.model.paged_model import PagedModel
from headrace.model.surgery.proven import operate_and_prove

pytestmark = pytest.mark.skipif(load_library() is None, reason="the CPU kernels were not built")

FULLY_FUSED = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2", "granite", "smollm3", "mixtral",
    "qwen3_moe",
)  # fmt: skip


@pytest.mark.parametrize("model_type", FULLY_FUSED)
def test_fuses_fully(model_type: str) -> None:
    paged = PagedModel(load(make_model(model_type), dtype="auto", device="cpu"), "auto")
    try:
        _, report = operate_and_prove(paged)
        assert report is not None
        assert not report.dropped
        counts = dict.fromkeys(("layer", "attention", "mlp", "experts"), 0)
        for (kind, _), count in report.fused.items():
            counts[kind] = counts.get(kind, 0) + count
        assert counts["layer"] == counts["attention"] == counts["mlp"] + counts["experts"] == len(paged.layers) == 3
        model = paged.loaded.model
        replaced = {child for module in model.modules() if "forward" in module.__dict__ for child in module.modules()}
        own = [m for m in model.modules() if m not in replaced and next(m.parameters(recurse=False), None) is not None]
        assert all(isinstance(module, nn.Embedding) for module in own)
    finally:
        paged.close()


def test_words() -> None:
    full = {"layer": 2, "attention": 2, "mlp": 1, "experts": 1, "norm": 5}
    assert str(Fusion(2, full, {})) == "all"
    assert str(Fusion(3, full, {})) == "layers 2, attention 2, feed-forward 1, experts 1, norms 5"
    assert str(Fusion(2, {"mlp": 2}, {"attention": 2})) == "feed-forward 2; not attention 2"
    assert str(Fusion(2, {}, {})) == "nothing"


def test_counts_what_stays_the_models_own() -> None:
    """Latent attention computes its keys in a way of its own; its other parts fuse."""
    fusion = fusion_of(make_model("deepseek_v3"))
    assert fusion is not None
    assert fusion.kept == {"attention": 3}
    assert fusion.fused["mlp"] == 3
    assert not fusion.is_full
