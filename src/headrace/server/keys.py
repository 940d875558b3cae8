"""API keys: made once, kept as hashes.

A key is 256 random bits, so SHA-256 of it cannot be turned round by guessing; a slow hash, which passwords need, would
cost milliseconds a request and add nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from headrace.errors import ConfigError

Role = Literal["user", "admin"]
ROLES: tuple[str, ...] = get_args(Role)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """What is kept of a key.

    Attributes:
        name: of its holder, for logs and limits. role: what it may do. digest: SHA-256 of the key, 32 bytes.
    """

    name: str
    role: Role
    digest: bytes

    def __str__(self) -> str:
        """The entry as it stands in a file."""
        return f"{self.name}:{self.role}:sha256:{self.digest.hex()}"


def key_digest(key: str) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def new_key(name: str, role: str = "user") -> tuple[str, KeyEntry]:
    """Make a key: the key itself, to be shown once, and what is kept of it. Raises ConfigError."""
    key = f"hr-{secrets.token_urlsafe(32)}"
    return key, _entry(name, role, key_digest(key))


def parse_entry(text: str) -> KeyEntry:
    """Read "name:role:sha256:hash". Raises ConfigError, which never shows the text: it may be a key by mistake."""
    parts = text.strip().split(":")
    if len(parts) != 4 or parts[2] != "sha256" or not _HASH.fullmatch(parts[3]):
        raise ConfigError(
            f"an API key entry of {len(parts)} parts is not name:role:sha256:hash with 64 hexadecimal digits; "
            "`headrace key new NAME` makes one"
        )
    return _entry(parts[0], parts[1], bytes.fromhex(parts[3]))


def read_keys_file(path: Path) -> list[KeyEntry]:
    """Entries of a file, one a line; empty lines and lines with # are skipped. Raises ConfigError with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_keys_file={str(path)!r} cannot be read: {error}") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                entries.append(parse_entry(line))
            except ConfigError as error:
                raise ConfigError(f"{path}, line {number}: {error}") from None
    if not entries:
        raise ConfigError(f"{path} has no API key: `headrace key new NAME --file {path}` adds one")
    return entries


def append_entry(path: Path, entry: KeyEntry) -> None:
    """Add an entry to a file, which is made for its owner alone if it is not there. Raises ConfigError."""
    exists = path.exists() and path.stat().st_size > 0
    if exists:
        check_unique([*read_keys_file(path), entry])
    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+b") as file:
            if exists:
                file.seek(-1, os.SEEK_END)
            newline = b"\n" if exists and file.read(1) != b"\n" else b""
            file.write(newline + f"{entry}\n".encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error


def check_unique(entries: Iterable[KeyEntry]) -> None:
    """Names tell keys apart in logs and limits; raises ConfigError for one that is there twice."""
    seen = set()
    for entry in entries:
        if entry.name in seen:
            raise ConfigError(f"there are two API keys with the name {entry.name!r}: each needs its own")
        seen.add(entry.name)


def _entry(name: str, role: str, digest: bytes) -> KeyEntry:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"an API key's name is up to 64 letters, digits and _ . @ -, which {name!r} is not")
    if role not in ROLES:
        raise ConfigError(f"role={role!r} is not one of {', '.join(ROLES)}")
    return KeyEntry(name, cast("Role", role), digest)
