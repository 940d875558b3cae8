"""Which tokens of which request the next step computes. Pure Python, no torch, a function of its state."""

from headrace.engine.scheduler.limits import SchedulerLimits
from headrace.engine.scheduler.policy import Policy, get_policy, register_policy
from headrace.engine.scheduler.scheduler import Scheduler

__all__ = ["Policy", "Scheduler", "SchedulerLimits", "get_policy", "register_policy"]
