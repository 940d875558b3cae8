"""The commands over a real engine: a tiny random model in a folder, with a tokenizer that was trained on the spot."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from headrace.cli.main import main
from tests.cli.fake_llm import TEMPLATE
from tests.text import tokenizers_for_tests as trained

FLAGS = ["--temperature", "0", "--max-tokens", "8", "--max-model-len", "256", "--num-blocks", "64"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tokenizer = trained.byte_level()
    tokenizer.save_pretrained(path)
    (path / "chat_template.jinja").write_text(TEMPLATE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    lines = [{"prompt": f"hello {number} world"} for number in range(1, 41)]
    lines[9] = {"messages": [{"role": "user", "content": "hello"}], "stop": "e", "n": 2, "logprobs": 1}
    lines[19] = {"prompt": "x" * 600}
    lines[29] = {"prompt": ""}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_file_of_prompts_and_the_same_alone(
    folder: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.jsonl"
    assert main(["generate", str(folder), "--input", str(source), "--output", str(target), *FLAGS]) == 1
    records = {record["index"]: record for record in map(json.loads, target.read_text().splitlines())}
    assert sorted(records) == list(range(1, 41))
    failed = {index: record["error"]["code"] for index, record in records.items() if record["error"]}
    assert failed == {20: "prompt_too_long", 30: "empty_prompt"}
    assert len(records[10]["outputs"]) == 2
    assert all(len(output["logprobs"]) == len(output["token_ids"]) for output in records[10]["outputs"])
    assert records[1]["num_prompt_tokens"] > 0
    assert records[1]["timing"]["e2e_s"] > 0
    assert main(["generate", str(folder), "--prompt", "hello 7 world", *FLAGS]) == 0
    assert capsys.readouterr().out == records[7]["outputs"][0]["text"] + "\n"


def test_chat_through_a_pipe(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n" * 12))
    assert main(["chat", str(folder), *FLAGS]) == 0
    captured = capsys.readouterr()
    assert captured.out
    assert "forgotten" in captured.err


def test_doctor_describes_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(folder), "--json", "--dtype", "float32", "--num-blocks", "64"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["class"] == "LlamaForCausalLM"
    assert model["num_layers"] == 2
    assert model["kv_bytes_per_token"] == 2 * 2 * 32 * 4  # layers, key and value, one head of 32, float32
    assert model["num_blocks"] == 64


@pytest.mark.slow
def test_control_c_on_the_process_and_the_same_command_again(folder: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"hello {number}"}) + "\n" for number in range(150)))
    command = [sys.executable, "-m", "headrace.cli.main", "generate", str(folder), "--input", str(source)]
    command += ["--output", str(target), *FLAGS, "--max-tokens", "60", "--ignore-eos", "--max-num-seqs", "4"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    # A shell's background job, as these tests may be one, begins with SIGINT ignored, and so would the command.
    options: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options) as process:
        while process.poll() is None and (not target.exists() or target.stat().st_size == 0):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted after" in complaint
    assert "Traceback" not in complaint
    done = len(target.read_text().splitlines())
    assert 0 < done < 150
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"{done} requests are finished already" in again.stderr
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert sorted(record["index"] for record in records) == list(range(1, 151))
