"""What bounds a step, and what all steps so far came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Bounds of one step.

    Attributes:
        max_num_batched_tokens: token budget of a step.
        max_num_seqs: most running requests; at most max_num_batched_tokens, so that each can decode in every step.
    """

    max_num_batched_tokens: int
    max_num_seqs: int


@dataclass(slots=True)
class SchedulerCounters:
    """Totals since the start.

    Attributes:
        num_steps: plans made that were not empty.
        num_computed_tokens: tokens that steps computed. num_recomputed_tokens: those of them computed before, and
            lost to a preemption. num_preemptions: how often.
        num_admissions: requests started, again after a preemption too. num_queue_timeouts: that waited too long.
        num_late_masks: how often a guided row was computed again, because its mask was not ready.
        num_prompt_tokens: of admitted requests. num_cached_tokens: those of them that came from the prefix cache.
    """

    num_steps: int = 0
    num_computed_tokens: int = 0
    num_recomputed_tokens: int = 0
    num_preemptions: int = 0
    num_admissions: int = 0
    num_queue_timeouts: int = 0
    num_late_masks: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0

    @property
    def prefix_hit_ratio(self) -> float:
        """Share of the admitted prompts' tokens that the prefix cache had, 0..1."""
        return self.num_cached_tokens / self.num_prompt_tokens if self.num_prompt_tokens else 0.0
