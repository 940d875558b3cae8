"""Logs: both forms, the rotating file, and that a log which cannot be written disturbs nobody."""

from __future__ import annotations

import errno
import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.observability import logs as logs_module
from headrace.observability.logs import LogPlan, Logs, setup
from headrace.observability.request_log import log_request
from tests.observability.test_metrics import record

SERVER = logging.getLogger("headrace.server")


class Full(io.StringIO):
    """A disk without space."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class Stuck(io.StringIO):
    """A terminal that takes nothing until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.go_on.wait()
        return super().write(text)


@pytest.fixture
def opened() -> Iterator[list[Logs]]:
    """Logs of a test, closed at its end."""
    made: list[Logs] = []
    yield made
    for logs in made:
        logs.close()


def written(plan: LogPlan, write: Any) -> list[str]:
    console = io.StringIO()
    logs = setup(plan, console)
    try:
        write()
        logs.flush()
    finally:
        logs.close()
    return console.getvalue().splitlines()


def test_text_is_aligned_and_short() -> None:
    lines = written(LogPlan(), lambda: (SERVER.info("ready at %s", "http://x"), SERVER.warning("slow")))
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} INFO    server   ready at http://x", lines[0])
    assert lines[1].index("slow") == lines[0].index("ready")


def test_json_lines() -> None:
    def write() -> None:
        SERVER.info("two\nlines", extra={"fields": {"id": "r1", "n": 3}})
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            SERVER.exception("failed")

    first, second = (json.loads(line) for line in written(LogPlan(form="json"), write))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"level": "info", "logger": "headrace.server", "message": "two\nlines", "id": "r1", "n": 3}
    assert "RuntimeError: broken" in second["exception"]


def test_the_line_of_a_request() -> None:
    one = record(request_id="req-1", queued_s=0.001, ttft_s=0.02, e2e_s=0.2, num_prompt_tokens=12, num_cached_tokens=4,
                 num_output_tokens=10, finish_reasons=("stop",))  # fmt: skip
    (line,) = written(LogPlan(form="json"), lambda: log_request(one))
    assert {name: value for name, value in json.loads(line).items() if name != "time"} == {
        "level": "info", "logger": "headrace.request", "message": "/v1/completions 200", "id": "req-1",
        "model": "builtin", "key": "alice", "finish": "stop", "error": None, "prompt": 12, "cached": 4, "output": 10,
        "queued_ms": 1.0, "ttft_ms": 20.0, "tpot_ms": 20.0, "e2e_ms": 200.0,
    }  # fmt: skip
    (line,) = written(LogPlan(), lambda: log_request(one))
    assert line.endswith("id=req-1 model=builtin key=alice finish=stop prompt=12 cached=4 output=10 queued_ms=1.0 "
                         "ttft_ms=20.0 tpot_ms=20.0 e2e_ms=200.0")  # fmt: skip


def test_a_request_that_the_server_failed_is_a_warning() -> None:
    failed = record(status=500, error_code="step_failed")
    (line,) = written(LogPlan(level="warning"), lambda: (log_request(record()), log_request(failed)))
    assert " WARNING " in line and "error=step_failed" in line


def test_what_a_client_chose_cannot_forge_a_line_or_command_a_terminal() -> None:
    evil = record(model="x\n12:00:00.000 INFO    server   all is well\x1b[2J", request_id="a\rb")
    lines = written(LogPlan(), lambda: log_request(evil))
    assert len(lines) == 1 and "\x1b" not in lines[0] and "\\x1b[2J" in lines[0] and "a\\rb" in lines[0]
    assert len(written(LogPlan(form="json"), lambda: log_request(evil))) == 1


def test_levels_of_own_and_other_loggers() -> None:
    def write() -> None:
        SERVER.debug("own debug")
        logging.getLogger("others").info("others' info")
        logging.getLogger("others").warning("others' warning")

    own, others = written(LogPlan(level="debug"), write)
    assert own.endswith("own debug") and others.endswith("others' warning")
    assert len(written(LogPlan(level="error"), write)) == 1


def test_closing_writes_everything_and_puts_the_loggers_back() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("headrace").level)
    console = io.StringIO()
    logs = setup(LogPlan(), console)
    for number in range(500):
        SERVER.info("%d", number)
    logs.close()
    assert len(console.getvalue().splitlines()) == 500
    assert (root.handlers[:], root.level, logging.getLogger("headrace").level) == before
    assert not [thread for thread in threading.enumerate() if thread.name == "headrace-logs"]


def test_the_file_is_rotated_and_five_old_ones_are_kept(
    tmp_path: Path, opened: list[Logs], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (logs_module.MAX_FILE_BYTES, logs_module.NUM_OLD_FILES) == (10_000_000, 5)
    monkeypatch.setattr(logs_module, "MAX_FILE_BYTES", 1000)
    opened.append(setup(LogPlan(file=tmp_path / "server.log"), io.StringIO()))
    for number in range(200):
        SERVER.info("line %d of many", number)
    opened[0].flush()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["server.log", *(f"server.log.{n}" for n in range(1, 6))]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert "line 199 of many" in (tmp_path / "server.log").read_text()


def test_a_file_that_cannot_be_opened_is_said_at_the_start(tmp_path: Path) -> None:
    handlers = logging.getLogger().handlers[:]
    with pytest.raises(ConfigError, match=r"log_file=.*cannot be opened"):
        setup(LogPlan(file=tmp_path / "nowhere" / "server.log"), io.StringIO())
    assert logging.getLogger().handlers == handlers


def test_a_full_disk_disturbs_nobody_and_the_console_goes_on(
    tmp_path: Path, opened: list[Logs], monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints = io.StringIO()
    monkeypatch.setattr("sys.__stderr__", complaints)
    console = io.StringIO()
    opened.append(setup(LogPlan(file=tmp_path / "server.log"), console))
    file = opened[0]._handlers[1]
    file.stream.close()
    file.stream = Full()  # type: ignore[attr-defined]
    for number in range(50):
        SERVER.info("line %d", number)
    opened[0].flush()
    assert len(console.getvalue().splitlines()) == 50
    assert complaints.getvalue().count("a log line cannot be written") == 1
    assert "No space left" in complaints.getvalue()
    file.stream = io.StringIO()  # type: ignore[attr-defined]  # there is space again
    SERVER.info("after")
    opened[0].flush()
    assert "after" in file.stream.getvalue()  # type: ignore[attr-defined]


def test_a_full_disk_and_no_terminal_either(opened: list[Logs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.__stderr__", Full())
    opened.append(setup(LogPlan(), Full()))
    for _ in range(3):
        SERVER.info("nobody reads this")
    opened[0].flush()
    assert opened[0]._handlers[0].num_failed == 3  # type: ignore[attr-defined]


def test_who_logs_never_waits_for_a_terminal_and_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "_MAX_QUEUED", 10)
    console = Stuck()
    logs = setup(LogPlan(), console)
    SERVER.info("first")
    assert console.entered.wait(10)
    for _ in range(25):
        SERVER.info("more")  # would hang here if it waited
    assert logs.num_dropped == 15
    console.go_on.set()
    logs.flush()
    SERVER.info("last")
    logs.close()
    lines = console.getvalue().splitlines()
    assert sum(line.endswith("more") for line in lines) == 10
    assert lines[-1].endswith("last")
    assert any("15 log lines were dropped" in line for line in lines)


def test_arguments_that_do_not_fit_their_message_are_shown() -> None:
    (line,) = written(LogPlan(), lambda: SERVER.info("%d and %d", 1))
    assert "'%d and %d' with (1,)" in line


def test_what_is_logged_is_what_it_was_at_the_time(opened: list[Logs]) -> None:
    console = Stuck()
    opened.append(setup(LogPlan(), console))
    things = ["a"]
    SERVER.info("%s", things)
    things.append("b")
    console.go_on.set()
    opened[0].flush()
    assert console.getvalue().endswith(" ['a']\n")
