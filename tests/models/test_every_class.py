"""`docs/models.md` says the truth about every decoder class of transformers."""

from __future__ import annotations

import re

import pytest
import transformers
from tools.model_table.table import PAGE, Verdict, judge_all, page
from tools.model_table.tiny_configs import class_name, make_model, model_types

from headrace import LLM
from headrace.errors import ModelNotSupported

REFUSED = {
    "qwen3_next": "linear_attention",
    "mamba": "linear_attention",
    "falcon_h1": "hybrid layers",
    "lfm2": "conv layers",
    "zaya": "hybrid layers",
    "deepseek_v32": "indexed_attention",
    "doge": "an attention mask or bias of its own",
    "inkling_text": "'position_bias'",
    "blt": "cross attention",
    "bart": "takes no position_ids",
    "gptj": "does not compute attention through transformers' attention interface",
}


@pytest.mark.parametrize("model_type", REFUSED)
def test_refusals_name_the_class_and_the_reason(model_type: str) -> None:
    with pytest.raises(ModelNotSupported, match=f"^{class_name(model_type)}: .*{re.escape(REFUSED[model_type])}"):
        LLM(make_model(model_type), block_size=4, num_blocks=64)


def test_the_page_lists_every_model_type() -> None:
    assert sorted(re.findall(r"^\| \w+ \| `([^`]+)` \|", PAGE.read_text(), re.M)) == model_types()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_is_what_happens() -> None:
    verdicts: list[Verdict] = judge_all(model_types())
    assert not [verdict for verdict in verdicts if verdict.wrong]
    assert len({verdict.class_name for verdict in verdicts if verdict.works}) >= 100
    assert page(verdicts, transformers.__version__) == PAGE.read_text()
