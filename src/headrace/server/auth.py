"""Who sends a request: by API key, by JWT, or, where none is needed, anybody.

A key or token comes as `Authorization: Bearer …`, as OpenAI's clients send it, or as `x-api-key: …`, as Anthropic's do.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.config import ServerConfig
from headrace.errors import Forbidden, Unauthorized
from headrace.server.key_ring import KeyRing
from headrace.server.keys import KeyEntry, Role, key_digest, parse_entry
from headrace.server.tokens import TokenVerifier


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request.

    Attributes:
        name: for logs: the key's name or the token's subject. role: what they may do.
        key_id: what limits count by; differs between a key and a token of the same name.
    """

    name: str
    role: Role
    key_id: str

    def require_admin(self) -> None:
        """Raises Forbidden for any other role."""
        if self.role != "admin":
            raise Forbidden(f"{self.name} has the role {self.role}; this endpoint needs a key or token of role admin")


class Authenticator:
    """Tells who sends a request. Without keys and tokens everybody is the same `anonymous`.

    Anonymous is admin where only this machine can connect, and user where `no_auth` opened the server to others.
    """

    def __init__(self, config: ServerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys. Raises ConfigError for a file or key that cannot be used."""
        fixed = [parse_entry(entry) for entry in config.api_keys]
        if config.api_key is not None:
            fixed.append(KeyEntry("api-key", "user", key_digest(config.api_key)))
        self._keys = KeyRing(fixed, Path(config.api_keys_file) if config.api_keys_file is not None else None, clock)
        self._tokens = TokenVerifier(config) if config.jwt_secret or config.jwt_public_key_file else None
        self._anonymous: Identity | None = None
        if not config.has_credentials:
            self._anonymous = Identity("anonymous", "admin" if config.is_local else "user", "anonymous")

    def authenticate(self, headers: Mapping[str, str]) -> Identity:
        """Tell who sends a request.

        Args:
            headers: of the request, by lower-case name.

        Raises:
            Unauthorized: there is no key or token, or it is not valid.
        """
        if self._anonymous is not None:
            return self._anonymous
        credential = _credential(headers)
        if credential is None:
            raise Unauthorized("no API key: send one as `Authorization: Bearer KEY` or as `x-api-key: KEY`")
        identity = self._by_key(credential)
        if identity is not None:
            return identity
        if self._tokens is not None and credential.count(".") == 2:
            subject, role = self._tokens.verify(credential)
            return Identity(subject, role, f"jwt:{subject}")
        raise Unauthorized("the API key is not valid")

    def _by_key(self, key: str) -> Identity | None:
        digest = key_digest(key)
        entry = self._keys.find(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            return None
        return Identity(entry.name, entry.role, f"key:{entry.name}")


def _credential(headers: Mapping[str, str]) -> str | None:
    scheme, _, credential = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and credential.strip():
        return credential.strip()
    return headers.get("x-api-key", "").strip() or None
