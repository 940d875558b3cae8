"""The engine on every instruction set that runs here, forced by the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools.model_table.equality import expected_tokens, run
from tools.model_table.tiny_configs import make_model

from headrace import LLM
from headrace.model.kernels.library import available_isas
from tests.engine.reference import PROMPTS, greedy

ROOT = Path(__file__).parents[2]
ISAS = available_isas()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not ISAS, reason="the CPU kernels were not built")]


@pytest.mark.parametrize("isa", ISAS)
def test_the_tokens_of_generate(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, mixed, in chunks, with prefix hits and after preemptions."""
    monkeypatch.setenv("HEADRACE_CPU_ISA", isa)
    model = make_model("qwen3")
    expected = expected_tokens(model)
    outcomes = run(model)
    assert {situation: outcome.tokens for situation, outcome in outcomes.items()} == dict.fromkeys(outcomes, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_int8_and_bfloat16_run(isa: str, monkeypatch: pytest.MonkeyPatch, tiny_model: object) -> None:
    """The bits of integer products are the same on all; what is around them may round apart, so the text is bounded."""
    monkeypatch.setenv("HEADRACE_CPU_ISA", isa)
    with LLM("builtin", dtype="bfloat16", num_blocks=32, quantization="int8") as llm:
        prompt = llm.chat_prompt([{"role": "user", "content": "What is 36 + 47?"}])
        assert "83" in llm.generate(prompt, greedy(24, ignore_eos=False))[0].outputs[0].text
    with LLM(tiny_model, num_blocks=64, quantization="int8") as llm:
        together = [output.outputs[0].token_ids for output in llm.generate(PROMPTS, greedy(8))]
        alone = [llm.generate(prompt, greedy(8))[0].outputs[0].token_ids for prompt in PROMPTS]
    assert together == alone


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
def test_named_models_faults_and_bits(isa: str) -> None:
    """The tests of those, in a process where the environment forces the instruction set from the start."""
    files = ["tests/models/test_named_architectures.py", "tests/engine/test_faults.py"]
    files.append("tests/engine/test_bit_identity.py")
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-m", "not slow", *files]
    environment = os.environ | {"HEADRACE_CPU_ISA": isa, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
