"""The parent's side stays light: a server that keeps an engine process needs no torch."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from headrace.observability.machine import process_rss_bytes
import headrace.engine.remote.process, headrace.engine.remote.link, headrace.engine.intake
heavy = [name for name in ("torch", "transformers", "safetensors") if name in sys.modules]
assert not heavy, heavy
assert process_rss_bytes() < 80 << 20, process_rss_bytes()
"""


def test_the_parents_side_imports_neither_torch_nor_transformers() -> None:
    code = CODE.replace('"torch"', '"numpy", "torch"')
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_simulated_child_imports_neither() -> None:
    code = CODE.replace("process, headrace.engine.remote.link", "child")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_python_interface_imports_torch_only_for_a_model() -> None:
    """Memory for a model is taken while torch is imported, so who imports LLM must not have it yet."""
    code = CODE.replace(
        "process, headrace.engine.remote.link", "building, headrace.engine.manager, headrace.engine.llm"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
