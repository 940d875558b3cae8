"""Loading a model: seconds from the first line of a new process, and memory, headrace beside transformers.

python benchmarks/load.py [--shape M] [--dtype bfloat16] [--times 4]

headrace: until an `LLM` could take a request (packed, operated on, proven). transformers: until `from_pretrained` has
returned, and every weight was read once (it maps the file; the first forward pays otherwise). Memory is anonymous: what
was there after a model of a few megabytes had been loaded and released is taken off, so that the interpreter and the
libraries do not count; "in use" is after a batch of 16 has run, with a cache of 64 blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from headrace.bench.shapes import model_folder, shape

_HEADRACE = """
from headrace import LLM
LLM({model!r}, num_blocks=64, max_model_len=512, max_num_seqs=16)
"""
_TRANSFORMERS = """
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({model!r}, dtype="auto")
for parameter in model.parameters():
    parameter.view(torch.uint8).view(-1)[::64].sum()
"""
_SAY = "\nimport os; print('done', flush=True); os._exit(0)\n"


def anonymous_mib() -> float:
    """Of this process."""
    found = re.search(r"^Anonymous:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def seconds(code: str) -> float:
    """Of a new process, from its begin until it says that it is done."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", code + _SAY]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # modules are compiled once, as on a user's machine
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - begin


def memory(model: str, small: str) -> dict[str, float]:
    """MiB that a model takes when it is loaded, and in use; of its weights; of its cache."""
    import gc

    from headrace import LLM

    limits = {"num_blocks": 64, "max_model_len": 512, "max_num_seqs": 16}
    LLM(small, **limits).close()
    gc.collect()
    before = anonymous_mib()
    llm = LLM(model, **limits)
    gc.collect()
    loaded = anonymous_mib() - before
    llm.generate([[5, 6, 7] * 20] * 16)
    in_use = anonymous_mib() - before
    weights = sum(file.stat().st_size for file in Path(model).glob("*.safetensors")) / 2**20
    return {"weights": round(weights), "loaded": round(loaded), "in_use": round(in_use)}


def main() -> int:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="M")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--model-dir", type=Path, default=Path("~/.cache/headrace/bench").expanduser())
    arguments = parser.parse_args()
    model, small = (
        str(model_folder(shape(name), arguments.dtype, arguments.model_dir)) for name in (arguments.shape, "XS")
    )
    found: dict[str, list[float]] = {"headrace": [], "transformers": []}
    for _ in range(arguments.times):
        found["headrace"].append(seconds(_HEADRACE.format(model=model)))
        found["transformers"].append(seconds(_TRANSFORMERS.format(model=model)))
    ratios = [own / other for own, other in zip(found["headrace"], found["transformers"], strict=True)]
    figures = {name: [round(value, 2) for value in values] for name, values in found.items()}
    print(json.dumps({"seconds": figures, "ratio": round(median(ratios), 2), "MiB": memory(model, small)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
