"""Engines, servers and replicas that cannot take a request."""

from __future__ import annotations

from headrace.errors.base import HeadraceError


class ServerDraining(HeadraceError):
    """A server that finishes what it has, and takes nothing new."""

    code = "server_draining"
    http_status = 503

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        """Say so, and when another server may have taken its place."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineStopped(HeadraceError, RuntimeError):
    """Submitted to an engine that was stopped, or not started yet."""

    code = "engine_stopped"
    http_status = 503
    retry_after_s = 5.0  # about what a restart takes


class EngineUnresponsive(HeadraceError, RuntimeError):
    """The engine runs, but did not answer in time."""

    code = "engine_unresponsive"
    http_status = 503
    retry_after_s = 5.0


class EngineDead(HeadraceError, RuntimeError):
    """The engine's thread or process died; `__cause__` carries the reason."""

    code = "engine_dead"
    http_status = 503
    retry_after_s = 5.0  # about what a restart takes


class NoReplica(HeadraceError):
    """No replica of the gateway is able to take a request."""

    code = "no_replica"
    http_status = 503


class ReplicaFailed(HeadraceError):
    """The replicas that were asked failed, each with its reason."""

    code = "replica_failed"
    http_status = 502
