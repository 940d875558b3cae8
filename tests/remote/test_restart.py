"""When a process is started again, and when it counts as stalled: pure decisions."""

from __future__ import annotations

import signal

from headrace.engine.remote.endings import silent_death
from headrace.engine.remote.restart import RestartPolicy, StallLimits, failures_in_a_row


def test_the_delay_doubles_up_to_its_limit_and_then_it_is_given_up() -> None:
    policy = RestartPolicy(first_delay_s=0.5, most_delay_s=3.0, max_failures=5)
    assert [policy.delay_s(n) for n in range(1, 8)] == [0.5, 1.0, 2.0, 3.0, 3.0, None, None]
    assert RestartPolicy(max_failures=0).delay_s(1) is None


def test_a_calm_time_ends_a_row_of_failures() -> None:
    assert failures_in_a_row(3, ready_for_s=59.0, calm_s=60.0) == 4
    assert failures_in_a_row(3, ready_for_s=60.0, calm_s=60.0) == 1
    assert failures_in_a_row(3, ready_for_s=None, calm_s=60.0) == 4


def test_silence_and_long_steps_are_told_in_numbers() -> None:
    limits = StallLimits(silence_s=2.0, step_s=30.0)
    assert limits.reason(0.5, 29.0) is None
    assert "said nothing for 2.1 s" in (limits.reason(2.1, 0.0) or "")
    assert "under way for 31.0 s (limit 30 s)" in (limits.reason(0.1, 31.0) or "")


def test_an_exit_status_in_words() -> None:
    assert "killed by SIGKILL (by the system when memory ran short" in str(silent_death(-signal.SIGKILL, []))
    crash = silent_death(-signal.SIGSEGV, ["Fatal Python error: Segmentation fault", "  File x.py"])
    assert "SIGSEGV (it crashed in native code)" in str(crash)
    assert "Fatal Python error: Segmentation fault\n  File x.py" in str(crash.__cause__)
    assert "ended with status 3 without a word" in str(silent_death(3, []))
    assert "killed by signal 200" in str(silent_death(-200, []))
    assert "closed its connection" in str(silent_death(None, []))
