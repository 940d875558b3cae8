"""Which replica takes a request: one small class per policy behind one interface, by name.

Adding one is one file beside this one, and one line below.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from random import Random

from headrace.errors import ConfigError
from headrace.gateway.policies.policy import Candidate, Choice, Policy
from headrace.gateway.prefix_index import PrefixIndex

__all__ = ["Candidate", "Choice", "Policy", "get_policy", "policy_names", "register_policy"]

Factory = Callable[[Random, PrefixIndex], Policy]

_FACTORIES: dict[str, str | Factory] = {
    "prefix": "headrace.gateway.policies.prefix:make",
    "least_tokens": "headrace.gateway.policies.least:make_least_tokens",
    "least_connections": "headrace.gateway.policies.least:make_least_connections",
    "round_robin": "headrace.gateway.policies.round_robin:make",
    "weighted_round_robin": "headrace.gateway.policies.weighted_round_robin:make",
    "power_of_two": "headrace.gateway.policies.power_of_two:make",
    "consistent_hash": "headrace.gateway.policies.rendezvous:make_consistent_hash",
    "ip_hash": "headrace.gateway.policies.rendezvous:make_ip_hash",
    "random": "headrace.gateway.policies.at_random:make",
}


def policy_names() -> list[str]:
    """The names there are."""
    return sorted(_FACTORIES)


def register_policy(name: str, factory: Factory) -> None:
    """Make an own policy known by name."""
    _FACTORIES[name] = factory


def get_policy(name: str, random: Random, index: PrefixIndex) -> Policy:
    """A policy by name, with a source of random numbers and the index of prefixes. Raises ConfigError."""
    factory = _FACTORIES.get(name)
    if factory is None:
        raise ConfigError(f"policy={name!r} is not one of {', '.join(policy_names())}")
    if isinstance(factory, str):
        module, _, attribute = factory.partition(":")
        made: Policy = getattr(import_module(module), attribute)(random, index)
        return made
    return factory(random, index)
