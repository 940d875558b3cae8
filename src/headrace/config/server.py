"""The settings of one HTTP server."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from headrace.errors import ConfigError

MIN_SECRET_BYTES = 32
"""Of an HS256 secret: the length of the hash, as RFC 7518 section 3.2 asks for."""

MIN_KEY_LENGTH = 16
"""Characters of an API key that is given as it is: fewer can be tried out."""

_QUEUED_CACHES = 4
"""How many caches full of prompts may wait where `max_queue_tokens` is left open."""

_WILDCARDS = frozenset({"0.0.0.0", "::", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of one HTTP server; the model's and the cache's are in EngineConfig.

    Attributes:
        host: address to listen on. Others than loopback need api_keys_file, a JWT setting or no_auth.
        port: to listen on; 0 takes a free one.
        uds: path of a Unix socket to listen on in place of host and port; who may connect is up to the file system.
        tls_certificate: PEM file of the certificate and its chain; with it the server speaks HTTPS only.
        tls_key: PEM file of the certificate's private key.
        api_keys_file: file of API keys, one "name:role:sha256:hash" a line; `headrace key new` makes them. Read again
            when it changes.
        api_keys: such entries themselves.
        api_key: one API key as it is, of role user; for HEADRACE_API_KEY from a secret store.
        jwt_secret: shared secret of HS256 tokens, at least 32 bytes.
        jwt_public_key_file: PEM file of the public key of RS256 tokens.
        jwt_audience: what the "aud" of a token must have; none: not looked at.
        jwt_issuer: what the "iss" of a token must be; none: not looked at.
        jwt_leeway_s: seconds by which the clocks of issuer and server may differ.
        no_auth: serve everybody, also on an address that others can reach; admin endpoints stay closed there.
        cors_origins: origins (https://host) whose pages may call the server; "*" is all of them.
        max_body_bytes: most bytes of a request's body.
        max_streams_per_key: most answers under way at a time for one key or token subject; none is unbounded.
        max_queue_size: most requests that wait for the engine; more are answered with 429.
        max_queue_tokens: most prompt tokens that wait for the engine; none: as many as fill the cache four times.
        queue_timeout_s: seconds after which a request that still waits ends with 503; none is unbounded.
        drain_timeout_s: seconds that running requests get to finish after SIGTERM or a call of /admin/drain.
        strict_fields: refuse a request with an unknown field, instead of naming the field in x-ignored-fields.
        served_model_name: names that requests may give the model, the first is shown; none given: the model's own.
        register: address of a gateway that the server announces itself to, http://host:port.
        register_name: its name there; none: host and port of its address.
        advertise_url: address that the gateway reaches it by; none: the one it listens on.
        register_key: API key of role admin for that gateway.
        log_level: least level that is logged, "debug", "info", "warning" or "error".
        log_format: "text", or "json" for one JSON object a line.
        log_file: also log to this file, which is rotated at 10 MB and kept five times.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    api_keys_file: str | None = None
    api_keys: tuple[str, ...] = field(default=(), metadata={"secret": True}, repr=False)
    api_key: str | None = field(default=None, metadata={"secret": True}, repr=False)
    jwt_secret: str | None = field(default=None, metadata={"secret": True}, repr=False)
    jwt_public_key_file: str | None = None
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_leeway_s: float = 10.0
    no_auth: bool = False
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 16 << 20
    max_streams_per_key: int | None = None
    max_queue_size: int | None = 1024
    max_queue_tokens: int | None = None
    queue_timeout_s: float | None = 60.0
    drain_timeout_s: float = 30.0
    strict_fields: bool = False
    served_model_name: tuple[str, ...] = ()
    register: str | None = None
    register_name: str | None = None
    advertise_url: str | None = None
    register_key: str | None = field(default=None, metadata={"secret": True}, repr=False)
    log_level: str = "info"
    log_format: str = "text"
    log_file: str | None = None

    def __post_init__(self) -> None:
        """Check every range and every combination; raises ConfigError."""
        self._check_ranges()
        self._check_choice("log_level", ("debug", "info", "warning", "error"))
        self._check_choice("log_format", ("text", "json"))
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing, given = ("tls_key", "tls_certificate") if self.tls_key is None else ("tls_certificate", "tls_key")
            raise ConfigError(f"{given}={getattr(self, given)!r} needs {missing} too")
        if self.jwt_secret is not None and len(self.jwt_secret.encode()) < MIN_SECRET_BYTES:
            raise ConfigError(
                f"jwt_secret has {len(self.jwt_secret.encode())} bytes; HS256 needs {MIN_SECRET_BYTES} or more that "
                "nobody can guess: `openssl rand -hex 32` makes some"
            )
        self._check_authentication()
        self._check_registration()

    def _check_ranges(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port={self.port} must be 1 to 65535, or 0 for a free one")
        if self.max_body_bytes < 1:
            raise ConfigError(f"max_body_bytes={self.max_body_bytes} must be at least 1")
        for name in ("max_streams_per_key", "max_queue_size", "max_queue_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1, or none")
        for name in ("jwt_leeway_s", "drain_timeout_s"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name}={value} must be a number of seconds, 0 or more")
        if self.queue_timeout_s is not None and not 0 < self.queue_timeout_s < float("inf"):
            raise ConfigError(f"queue_timeout_s={self.queue_timeout_s} must be more than 0 seconds, or none")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ConfigError(f"{name}={getattr(self, name)!r} is not one of {', '.join(choices)}")

    def _check_authentication(self) -> None:
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigError("api_key has characters that no HTTP header can carry: printable ASCII works")
        if self.api_key is not None and (len(self.api_key) < MIN_KEY_LENGTH or " " in self.api_key):
            raise ConfigError(
                f"api_key has {len(self.api_key)} characters; it needs {MIN_KEY_LENGTH} or more without a space, that "
                "nobody can guess: `openssl rand -hex 32` makes some"
            )
        if self.no_auth and self.has_credentials:
            raise ConfigError("no_auth=True contradicts the API keys or JWT settings that are given: leave one out")
        if not (self.has_credentials or self.no_auth or self.is_local):
            raise ConfigError(
                f"host={self.host!r} can be reached by others, so requests need authentication: make a key with "
                "`headrace key new NAME --file keys.txt` and give api_keys_file=keys.txt, or give jwt_secret or "
                "jwt_public_key_file; or listen on 127.0.0.1; or give no_auth to serve everybody"
            )
        if not (self.jwt_secret or self.jwt_public_key_file) and (self.jwt_audience or self.jwt_issuer):
            raise ConfigError("jwt_audience and jwt_issuer need jwt_secret or jwt_public_key_file")

    def _check_registration(self) -> None:
        for name in ("register", "advertise_url"):
            value = getattr(self, name)
            if value is not None and not value.startswith(("http://", "https://")):
                raise ConfigError(f"{name}={value!r} is no address; http://10.0.0.5:8000 would be")
        if self.register is None:
            given = [name for name in ("register_name", "advertise_url", "register_key") if getattr(self, name)]
            if given:
                raise ConfigError(f"{', '.join(given)} need register, the address of the gateway")
        elif self.advertise_url is None and (self.uds is not None or self.host in _WILDCARDS):
            shown = f"uds={self.uds!r}" if self.uds is not None else f"host={self.host!r}"
            raise ConfigError(f"register with {shown} needs advertise_url, the address that the gateway reaches it by")

    @property
    def has_credentials(self) -> bool:
        """Whether any key or token can be valid; then every request needs one."""
        return any((self.api_keys_file, self.api_keys, self.api_key, self.jwt_secret, self.jwt_public_key_file))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.uds is not None or is_loopback(self.host)

    def queue_tokens(self, num_cache_tokens: int) -> int:
        """Most prompt tokens that may wait, for a cache of that many tokens."""
        return self.max_queue_tokens or _QUEUED_CACHES * num_cache_tokens


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's alone; a name that is not known to be counts as not."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
