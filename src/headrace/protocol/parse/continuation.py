"""The member headrace_continue of any body that generates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.protocol.call import BegunChoice, Continuation


def continuation_of(given: Mapping[str, Any]) -> Continuation | None:
    """What was given out by another server; None in every request of a client."""
    begun = given.get("headrace_continue")
    if begun is None:
        return None
    choices = tuple(BegunChoice(choice["token_ids"], choice.get("finish_reason")) for choice in begun["choices"])
    return Continuation(begun["id"], begun.get("created"), begun.get("seed"), choices)
