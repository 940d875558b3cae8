"""When an engine process counts as stalled, and when it is started again. Pure decisions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How an engine process that ended is started again.

    Attributes:
        first_delay_s: before the first restart; each further failure in a row doubles it, up to most_delay_s.
        max_failures: failures in a row after which it is given up; 0 never restarts. A failure is out of the row
            after the next process has been ready for calm_s.
        max_resubmissions: how often a request that has no token yet is given to another process; the request itself
            may be what ends them.
    """

    first_delay_s: float = 0.5
    most_delay_s: float = 30.0
    max_failures: int = 5
    calm_s: float = 60.0
    max_resubmissions: int = 2

    def delay_s(self, num_failures: int) -> float | None:
        """Seconds until the restart after so many failures in a row; None: give up."""
        if num_failures > self.max_failures:
            return None
        return min(self.first_delay_s * 2.0 ** (num_failures - 1), self.most_delay_s)


@dataclass(frozen=True, slots=True)
class StallLimits:
    """When an engine process that has not ended is in trouble all the same.

    Attributes:
        silence_s: it sends something every half second; so long without makes it stalled.
        step_s: a step that takes so long makes it stalled.
        hang_s: stalled for so long, it is killed, and started again; None: it may come back after any time.
    """

    silence_s: float = 2.0
    step_s: float = 30.0
    hang_s: float | None = 120.0

    def reason(self, silence_s: float, step_age_s: float) -> str | None:
        """Why it is stalled, in words; None when it is not."""
        if silence_s > self.silence_s:
            return f"the engine process has said nothing for {silence_s:.1f} s (it should every 0.5 s)"
        if step_age_s > self.step_s:
            return f"a step has been under way for {step_age_s:.1f} s (limit {self.step_s:.0f} s)"
        return None


def failures_in_a_row(num_before: int, ready_for_s: float | None, calm_s: float) -> int:
    """How many failures in a row there are, with one more, of a process that was ready for so long (None: never)."""
    return 1 if ready_for_s is not None and ready_for_s >= calm_s else num_before + 1
