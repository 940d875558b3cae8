"""`python -m tools.api_docs` writes docs/api.md."""

from __future__ import annotations

from pathlib import Path

from headrace.protocol.api_page import page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
