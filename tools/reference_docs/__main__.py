"""`python -m tools.reference_docs` writes docs/settings.md and docs/metrics.md; a test keeps them up to date."""

from __future__ import annotations

from pathlib import Path

from tools.reference_docs.pages import PAGES

DOCS = Path(__file__).resolve().parents[2] / "docs"

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
