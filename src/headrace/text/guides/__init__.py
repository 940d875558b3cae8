"""Guides: answers that are JSON of a schema, match a regular expression or a grammar, or are one of a few. No torch.

::

    GuideSpec ──check──► refused in words, before anything waits for it
        └──GuideCompiler.compile──► Guide: for the tokens so far, which tokens may come next

The work is llguidance's; here are its limits, and what keeps a hostile grammar to itself.
"""

from headrace.text.guides.check import check
from headrace.text.guides.compiler import GuideCompiler
from headrace.text.guides.grammar import json_in_lark
from headrace.text.guides.guide import Guide, GuideMask
from headrace.text.guides.spec import GuideKind, GuideSpec

__all__ = ["Guide", "GuideCompiler", "GuideKind", "GuideMask", "GuideSpec", "check", "json_in_lark"]
