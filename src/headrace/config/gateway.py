"""The settings of one gateway; where it listens and who may ask are ServerConfig's."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.errors import ConfigError

MOST_PROCESSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Settings of one gateway.

    Attributes:
        replicas: addresses of replicas, http://host:port.
        replica_file: file that lists replicas (TOML, YAML or an address a line), read again when it changes.
        replica_api_key: key that the gateway itself shows to replicas when it asks how they are; clients' own keys are
            passed on.
        processes: that share the port and the work; each uses one core at most.
        policy: who takes a request: "prefix", "least_tokens", "least_connections", "round_robin",
            "weighted_round_robin", "power_of_two", "consistent_hash", "ip_hash" or "random".
        failure_threshold: failures in a row after which a replica gets no requests for recovery_s.
        recovery_s: seconds until it is tried again, with one request.
        probe_interval_s: seconds between two health checks of a replica.
        probe_timeout_s: seconds that a health check may take.
        lease_s: seconds after its last announcement that a registered replica is dropped.
        max_attempts: most replicas that a request is sent to before its answer begins.
        index_file: keeps what is known of the replicas' caches across a restart; none: nothing is kept.
        index_tokens: prompt tokens per replica that the index remembers.
    """

    replicas: tuple[str, ...] = ()
    replica_file: str | None = None
    replica_api_key: str | None = field(default=None, metadata={"secret": True}, repr=False)
    processes: int = 1
    policy: str = "prefix"
    failure_threshold: int = 3
    recovery_s: float = 30.0
    probe_interval_s: float = 0.25
    probe_timeout_s: float = 0.4
    lease_s: float = 30.0
    max_attempts: int = 3
    index_file: str | None = None
    index_tokens: int = 2_000_000

    def __post_init__(self) -> None:
        """Check every range; raises ConfigError."""
        for name in ("failure_threshold", "max_attempts", "index_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if not 1 <= self.processes <= MOST_PROCESSES:
            raise ConfigError(f"processes={self.processes} must be 1 to {MOST_PROCESSES}")
        for name in ("recovery_s", "probe_interval_s", "probe_timeout_s", "lease_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name}={value} must be a number of seconds, more than 0")
