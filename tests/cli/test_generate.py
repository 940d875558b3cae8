"""`headrace generate`: lines in, lines out; going on after an interrupt; what is wrong is said, line by line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.main import main
from headrace.errors import EngineDead, StepFailed
from tests.cli.fake_llm import FakeLLM

PROMPTS = [f"prompt {number}" for number in range(1, 9)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt, "id": f"id {prompt}"}) + "\n" for prompt in PROMPTS))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def generate(source: Path, target: Path, *flags: str) -> int:
    return main(["generate", "m", "--input", str(source), "--output", str(target), *flags])


def records(path: Path) -> dict[int, dict[str, Any]]:
    """The lines of an output by index; an index may be there once."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    by_index = {line["index"]: line for line in lines}
    assert len(by_index) == len(lines)
    return by_index


def test_every_line_has_its_result(llm: FakeLLM, source: Path, target: Path) -> None:
    assert generate(source, target, "--temperature", "0") == 0
    results = records(target)
    assert sorted(results) == list(range(1, 9))
    assert results[3] == {
        "id": "id prompt 3",
        "index": 3,
        "prompt": "prompt 3",
        "outputs": [{"text": "3 tpmorp", "token_ids": [1, 2], "finish_reason": "stop", "stop_reason": None}],
        "error": None,
        "num_prompt_tokens": 3,
        "num_cached_tokens": 1,
        "timing": {"queued_s": 0.1, "prefill_s": 0.2, "ttft_s": 0.3, "e2e_s": 0.4},
    }
    assert all(params.temperature == 0 for params in llm.params)
    assert llm.closed


def test_the_window_is_bounded(llm: FakeLLM, source: Path, target: Path) -> None:
    assert generate(source, target) == 0
    assert llm.most_pending == 2 * llm.config.max_num_seqs
    assert len(llm.asked) == 8


def test_a_queue_that_is_full_is_waited_for(llm: FakeLLM, source: Path, target: Path) -> None:
    llm.limit = 1
    assert generate(source, target) == 0
    assert len(records(target)) == 8


def test_ids_messages_and_sampling_parameters_of_a_line(llm: FakeLLM, tmp_path: Path, target: Path) -> None:
    source = tmp_path / "in.jsonl"
    ids = llm.tokenizer.encode("hello")
    lines = [
        {"prompt": ids, "max_tokens": 7, "stop": "x", "logit_bias": {"5": 1.0}},
        {"messages": [{"role": "user", "content": "hi"}], "n": 2},
    ]
    source.write_text(json.dumps(lines[0]) + "\n\n" + json.dumps(lines[1]))
    assert generate(source, target, "--max-tokens", "9") == 0
    results = records(target)
    assert results[1]["prompt"] == ids
    assert results[3]["messages"] == lines[1]["messages"]
    assert len(results[3]["outputs"]) == 2
    assert llm.asked == ["hello", "[user] hi\n"]
    assert [params.max_tokens for params in llm.params] == [7, 9]
    assert (llm.params[0].stop, dict(llm.params[0].logit_bias)) == (("x",), {5: 1.0})


def test_chat_sends_text_as_a_message(llm: FakeLLM, source: Path, target: Path) -> None:
    assert generate(source, target, "--chat") == 0
    assert llm.asked[0] == "[user] prompt 1\n"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"prompt": "a"', "not JSON"),
        ('["a"]', "a JSON object such as"),
        ('{"prompt": "a", "temprature": 1}', "unknown key 'temprature'; did you mean 'temperature'?"),
        ('{"prompt": "a", "messages": []}', 'either "prompt" or "messages"'),
        ("{}", 'either "prompt" or "messages"'),
        ('{"prompt": 5}', '"prompt" must be a string'),
        ('{"prompt": [1.5]}', '"prompt" must be a string'),
        ('{"messages": "hi"}', '"messages" must be a list'),
        ('{"messages": []}', "at least one message"),
        ('{"prompt": "a", "temperature": -1}', "temperature=-1 is not allowed"),
        ('{"prompt": "a", "logit_bias": {"x": 1}}', "must be token ids"),
        ('{"prompt": ""}', "an empty prompt"),
        ('{"prompt": "\\ud800", "top_k": -1}', "top_k=-1"),
        (b'{"prompt": "\xff"}', "utf-8"),
    ],
)
def test_a_bad_line_is_an_error_of_its_own(
    llm: FakeLLM, tmp_path: Path, target: Path, line: str | bytes, complaint: str
) -> None:
    source = tmp_path / "in.jsonl"
    bad = line if isinstance(line, bytes) else line.encode()
    source.write_bytes(b'{"prompt": "before"}\n' + bad + b'\n{"prompt": "after"}\n')
    assert generate(source, target) == 1
    results = records(target)
    assert [results[1]["error"], results[3]["error"]] == [None, None]
    assert complaint in results[2]["error"]["message"]
    assert results[2]["outputs"] == []


def test_half_a_surrogate_pair_is_written_as_it_came(llm: FakeLLM, tmp_path: Path, target: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "\\ud800", "id": "é"}\n')
    assert generate(source, target) == 0
    assert records(target)[1]["prompt"] == "\ud800"
    assert "é" in target.read_text()


def test_errors_are_tried_again_and_the_finished_are_not(llm: FakeLLM, source: Path, target: Path) -> None:
    llm.failing = {"prompt 2": StepFailed("no luck"), "prompt 5": StepFailed("no luck")}
    assert generate(source, target) == 1
    assert records(target)[2]["error"] == {"code": "step_failed", "message": "no luck"}
    llm.failing, llm.asked = {}, []
    assert generate(source, target) == 0
    assert sorted(llm.asked) == ["prompt 2", "prompt 5"]
    assert sorted(records(target)) == list(range(1, 9))
    llm.asked = []
    assert generate(source, target) == 0
    assert llm.asked == []


def test_an_interrupt_leaves_a_file_to_go_on_from(
    llm: FakeLLM, source: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llm.interrupt_after = 3
    assert generate(source, target) == 130
    assert "interrupted after 3/8 requests" in capsys.readouterr().err
    assert len(records(target)) == 3
    assert all(handle.fetched or handle.cancelled for handle in llm.handles)
    llm.interrupt_after, llm.asked = None, []
    assert generate(source, target) == 0
    assert len(llm.asked) == 5
    assert sorted(records(target)) == list(range(1, 9))


@pytest.mark.slow
def test_every_place_where_a_line_can_be_cut_off(llm: FakeLLM, source: Path, target: Path) -> None:
    generate(source, target)
    whole = target.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start + 1, len(whole)):
        target.write_bytes(whole[:cut])
        assert generate(source, target) == 0
        assert sorted(records(target)) == list(range(1, 9))


def test_a_dead_engine_ends_the_run_and_keeps_what_is_done(llm: FakeLLM, source: Path, target: Path) -> None:
    llm.failing = {"prompt 6": EngineDead("gone")}
    assert generate(source, target) == 1
    assert all(record["error"] is None for record in records(target).values())
    assert all(handle.fetched or handle.cancelled for handle in llm.handles)


def test_an_output_of_something_else_is_left_alone(
    llm: FakeLLM, source: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("my notes", "my notes\n", '{"a": 1}\n'):
        target.write_text(content)
        assert generate(source, target) == 2
        assert "not a result of `headrace generate`" in capsys.readouterr().err
        assert target.read_text() == content


def test_an_output_of_another_input_is_refused(
    llm: FakeLLM, source: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(source, target)
    source.write_text(source.read_text().replace("prompt 4", "prompt four"))
    assert generate(source, target) == 2
    assert "line 4 of the input is not the one that the output has a result for" in capsys.readouterr().err
    assert generate(source, target, "--overwrite") == 0
    assert records(target)[4]["prompt"] == "prompt four"


def test_files_that_are_not_there(source: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before the model, which is not there either, is loaded."""
    assert generate(source.with_name("none"), target) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert generate(source, target.with_name("none") / "out") == 2
    assert "its folder does not exist" in capsys.readouterr().err
    assert generate(source, source) == 2
    assert "is the input" in capsys.readouterr().err


def test_a_pipe(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "abc"}\n')))
    assert main(["generate", "m", "--input", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"][0]["text"] == "cba"


def test_progress_on_stderr(llm: FakeLLM, source: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm.failing = {"prompt 2": StepFailed("no luck")}
    generate(source, target, "--progress")
    assert "8/8 requests, 1 failed, " in capsys.readouterr().err
    generate(source, target, "--progress")
    assert "1/1 requests, 1 failed, " in capsys.readouterr().err


def test_prompts_of_the_command_line_into_a_file(llm: FakeLLM, target: Path) -> None:
    command = ["generate", "m", "--prompt", "abc", "--prompt", "def", "--output", str(target)]
    assert main(command) == 0
    assert [records(target)[index]["prompt"] for index in (1, 2)] == ["abc", "def"]
    assert main(command) == 0
    assert llm.asked == ["abc", "def"]


def test_prompts_of_the_command_line_as_text(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "m", "--prompt", "abc"]) == 0
    assert capsys.readouterr().out == "cba\n"
    assert main(["generate", "m", "--prompt", "abc", "--prompt", "def"]) == 0
    assert capsys.readouterr().out == "==> prompt 1 <==\ncba\n\n==> prompt 2 <==\nfed\n\n"
    llm.failing = {"abc": StepFailed("no luck")}
    assert main(["generate", "m", "--prompt", "abc", "--prompt", "def"]) == 1
    assert capsys.readouterr().err == "headrace: prompt 1: no luck\n"
