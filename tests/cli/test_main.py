"""The command itself: quick to answer, errors without a traceback, exit codes."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from headrace.cli.main import COMMANDS, main
from headrace.errors import ConfigError, EngineDead, ModelNotSupported

ENVIRONMENT = {"PYTHONPATH": ":".join(sys.path)}
LIMIT_S = 0.3


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_answer_quickly(flag: str) -> None:
    """Processor time and not time on the clock, as the machine may be busy with something else."""
    command = [sys.executable, "-m", "headrace.cli.main", flag]
    start_s = _children_s()
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout
    assert _children_s() - start_s < LIMIT_S
    assert output.startswith("usage: headrace" if flag == "--help" else "headrace ")


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("command", ["generate", "chat", "bench", "doctor", "config", "key"])
def test_a_commands_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys\nfrom headrace.cli.main import main\n"
        f"try: main(['{command}', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=ENVIRONMENT)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().err
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("no"), 2), (ModelNotSupported("no"), 2), (EngineDead("no"), 1), (KeyboardInterrupt(), 130)],
)
def test_errors_become_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("headrace.cli.doctor.run", fail)
    assert main(["doctor"]) == code
    if code != 130:
        assert capsys.readouterr().err == "headrace: error: no\n"


def test_a_setting_out_of_range_is_said_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "/nowhere", "--prompt", "x", "--block-size", "3"]) == 2
    assert "block_size=3 is not a power of two" in capsys.readouterr().err
    assert main(["generate", "/nowhere", "--prompt", "x", "--temperature", "-1"]) == 2
    assert "temperature=-1.0 is not allowed" in capsys.readouterr().err
    assert main(["chat", "/nowhere", "--n", "2"]) == 2
    assert "a conversation goes on from one answer" in capsys.readouterr().err


@pytest.mark.slow
def test_output_that_nobody_reads_any_more() -> None:
    command = f"{sys.executable} -m headrace.cli.main doctor | true"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("serve builtin --prot 5", "there is no flag --prot; did you mean --port?"),
        ("config show --num-block=5", "there is no flag --num-block; did you mean --num-blocks?"),
        ("bench serve --rat 5", "there is no flag --rat; did you mean --rate?"),
        ("--vrsion", "there is no flag --vrsion; did you mean --version?"),
        ("serve builtin another", "another is one argument too many"),
    ],
)
def test_an_unknown_flag_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], command: str, words: str
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(command.split())
    assert exited.value.code == 2
    assert words in capsys.readouterr().err
