"""Model folders that come with headrace, so that a server can be started and tested without a download.

`builtin` is a very small chat model; its README.md says how it was made and how well
it answers. It is an ordinary transformers folder and is loaded as any other model is.
"""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parent


def names() -> list[str]:
    """The names of the model folders that are here."""
    return sorted(folder.name for folder in _ROOT.iterdir() if (folder / "config.json").is_file())


def path(name: str) -> Path:
    """The folder of a model by its name; ValueError, with the names there are, for any other."""
    # Compared with the listing and not joined to the root, so that a name cannot lead elsewhere.
    if name not in names():
        raise ValueError(f"no model named {name!r} comes with headrace; there is: {', '.join(names()) or 'none'}")
    return _ROOT / name
