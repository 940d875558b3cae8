"""`headrace chat` through a pipe and on a terminal that is played by the test."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from headrace.cli.main import main
from headrace.errors import EngineDead, StepFailed
from tests.cli.fake_llm import FakeLLM

Talk = Callable[..., tuple[int, str, str]]


@pytest.fixture
def talk(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Pipe lines in; gives the exit code and what came out."""

    def pipe(*lines: str, flags: tuple[str, ...] = ()) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
        code = main(["chat", "m", *flags])
        return code, *capsys.readouterr()

    return pipe


def test_answers_with_history(llm: FakeLLM, talk: Talk) -> None:
    llm.config.max_model_len = 1000
    code, out, err = talk("ab", "", "cd", flags=("--system", "be kind"))
    assert code == 0
    assert llm.asked == [
        "[system] be kind\n[user] ab\n",
        "[system] be kind\n[user] ab\n[assistant] \nba ]resu[\ndnik eb ]metsys[\n[user] cd\n",
    ]
    assert out.startswith("\nba ]resu[\ndnik eb ]metsys[\n")
    assert err == ""


def test_commands(llm: FakeLLM, talk: Talk) -> None:
    llm.config.max_model_len = 1000
    code, _, err = talk(
        "ab", "/reset", "cd", "/system be brief", "ef", "/system", "gh", "/what", "/help", "/quit", "ij"
    )
    assert code == 0
    assert llm.asked == ["[user] ab\n", "[user] cd\n", "[system] be brief\n[user] ef\n", "[user] gh\n"]
    assert "there is no command /what" in err
    assert "/system TEXT" in err


def test_the_oldest_turns_are_forgotten_when_the_model_is_full(llm: FakeLLM, talk: Talk) -> None:
    llm.config.max_model_len = 100
    code, _, err = talk("hello one", "hello two", "hello three", flags=("--max-tokens", "90"))
    assert code == 0
    assert "forgotten" in err
    assert "hello one" not in llm.asked[-1]
    assert llm.asked[-1].endswith("[user] hello three\n")
    sizes = [len(llm.tokenizer.encode(asked)) for asked in llm.asked]
    assert all(size + params.max_tokens <= 100 for size, params in zip(sizes, llm.params, strict=True))
    assert all(params.max_tokens >= 25 for params in llm.params)


def test_a_message_that_is_too_long_alone(llm: FakeLLM, talk: Talk) -> None:
    code, _, err = talk("x" * 200, "ab")
    assert code == 1
    assert "error: the message takes" in err
    assert llm.asked == ["[user] ab\n"]


def test_an_error_costs_one_turn_and_a_dead_engine_all(llm: FakeLLM, talk: Talk) -> None:
    llm.config.max_model_len = 1000
    llm.failing = {"[user] ab\n": StepFailed("no luck")}
    code, _, err = talk("ab", "cd")
    assert code == 1
    assert "error: no luck" in err
    assert llm.asked[-1] == "[user] cd\n"
    llm.failing = {"[user] ab\n": EngineDead("gone")}
    code, _, err = talk("ab", "cd")
    assert (code, err) == (1, "headrace: error: gone\n")


def test_an_interrupt_stops_the_answer_and_keeps_what_was_said(llm: FakeLLM, talk: Talk) -> None:
    llm.config.max_model_len = 1000
    llm.interrupt_after = 3
    code, out, _ = talk("ab", "cd")
    assert code == 0
    assert out.splitlines()[1] == "ba …"
    assert llm.asked[1] == "[user] ab\n[assistant] \nba\n[user] cd\n"


def test_on_a_terminal(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = iter(["ab", KeyboardInterrupt, EOFError])

    def type_line(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", type_line)
    assert main(["chat", "m"]) == 0
    assert llm.asked == ["[user] ab\n"]
    assert "/help lists the commands" in capsys.readouterr().err
