"""docs/settings.md and docs/metrics.md are what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.reference_docs.pages import PAGES

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run: python -m tools.reference_docs"
