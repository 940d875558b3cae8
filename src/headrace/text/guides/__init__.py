"""Guides: answers that are JSON of a schema, match a regular expression or a grammar, or are one of a few. No torch.

::

    GuideSpec ──check──► refused in words, before anything waits for it
        └──GuideCompiler.compile──► Guide: for the tokens so far, which tokens may come next

The work is llguidance's; here are its limits, and what keeps a hostile grammar to itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.text.guides.spec import GuideKind, GuideSpec

if TYPE_CHECKING:
    from headrace.text.guides.checking import check
    from headrace.text.guides.compiler import GuideCompiler
    from headrace.text.guides.grammar import json_in_lark
    from headrace.text.guides.guide import Guide, GuideMask

__all__ = ["Guide", "GuideCompiler", "GuideKind", "GuideMask", "GuideSpec", "check", "json_in_lark"]

_HOMES = {
    "Guide": "guide",
    "GuideCompiler": "compiler",
    "GuideMask": "guide",
    "check": "checking",
    "json_in_lark": "grammar",
}


def __getattr__(name: str) -> Any:
    """What needs numpy and llguidance is imported when it is used: a spec is part of every sampling parameter."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
