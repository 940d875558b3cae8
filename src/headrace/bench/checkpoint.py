"""Makes a model folder with random weights: `python -m headrace.bench.checkpoint`, the job as JSON on stdin."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from headrace.engine.garbage import collections_paused

_SEED = 0


def make(model_type: str, config: dict[str, Any], dtype: str, folder: Path) -> None:
    """Write configuration, weights and tokenizer; the folder appears when it is whole.

    Weights are drawn in float32 and rounded, so that the same shape holds the same model in every dtype.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(_SEED)
    settings = AutoConfig.for_model(model_type, **config)
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.to(getattr(torch, dtype)).save_pretrained(unfinished)
    _tokenizer(settings.vocab_size).save_pretrained(unfinished)
    unfinished.rename(folder)


def _tokenizer(vocab_size: int) -> Any:
    """One made-up word per token id: built in a moment, for engines that do not load a model without a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0} | {f"t{index}": index for index in range(1, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


if __name__ == "__main__":
    job = json.load(sys.stdin)
    with collections_paused():
        make(job["model_type"], job["config"], job["dtype"], Path(job["folder"]))
