"""A gateway and what feeds it, put together from settings."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from headrace import __version__
from headrace.config.gateway import GatewayConfig
from headrace.gateway.discovery import DiscoveryHub, Source, parse_endpoint
from headrace.gateway.discovery.file import FileSource
from headrace.gateway.discovery.registration import RegistrationSource
from headrace.gateway.discovery.static import StaticSource
from headrace.gateway.fleet import Fleet
from headrace.gateway.gateway import Gateway
from headrace.gateway.health.breaker import BreakerSettings
from headrace.gateway.health.prober import Prober, ProbeSettings
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.http.upstream import UpstreamPool
from headrace.gateway.journal import Journal
from headrace.gateway.memory import Memory
from headrace.gateway.pages import Guard, Pages
from headrace.gateway.policies import get_policy
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.processes.shared_index import SharedIndex
from headrace.gateway.replica import Endpoint, Replica
from headrace.gateway.route import ProxySettings, Router


@dataclass(frozen=True, slots=True)
class Assembly:
    """A gateway and what feeds it.

    Attributes:
        hub: follows the sources of replicas. prober: asks the replicas how they are. journal: counts.
        memory: of the replicas' caches, across restarts; None: nothing is kept.
    """

    gateway: Gateway
    hub: DiscoveryHub
    prober: Prober
    journal: Journal
    pages: Pages
    memory: Memory | None

    def fleet_changed(self, endpoints: list[Endpoint]) -> None:
        """Take over a full set of replicas."""
        self.gateway.update(endpoints)
        if self.memory is not None:
            self.memory.recall(self.gateway.router.fleet, self.gateway.router.index)
        self.prober.follow()

    def keep_memory(self) -> None:
        """Write what is known of the replicas' caches, where it changed."""
        if self.memory is not None:
            self.memory.keep(self.gateway.router.fleet, self.gateway.router.index)

    async def stop(self) -> None:
        """No more probes, no more changes of the fleet, no more connections."""
        await self.hub.stop()
        await self.prober.stop()
        await self.gateway.close()


def assemble(
    config: GatewayConfig,
    guard: Guard,
    limits: ClientLimits,
    own_sources: Mapping[str, Source] | None = None,
    page_kind: type[Pages] = Pages,
    is_worker: bool = False,
) -> Assembly:
    """Put a gateway together; nothing runs yet.

    Args:
        config: of the gateway. guard: who may ask. limits: of clients' connections.
        own_sources: of replicas, besides those that the settings name; they go before them.
        page_kind: what answers for the gateway itself.
        is_worker: it has a parent, which tells it of the replicas and keeps what is known of their caches.

    Raises:
        ConfigError: a replica's address or the policy's name cannot be.
    """
    static = StaticSource(map(parse_endpoint, config.replicas))
    added, registered = StaticSource(), RegistrationSource(time.monotonic, config.lease_s)
    sources: dict[str, Source] = {**(own_sources or {}), "settings": static}
    if config.replica_file is not None:
        sources["file"] = FileSource(Path(config.replica_file))
    sources |= {"added": added, "registered": registered}
    index = SharedIndex(config.index_tokens) if is_worker else PrefixIndex(config.index_tokens)
    router, journal = _router(config, index)
    gateway = Gateway(router, limits)
    pages = page_kind(router, journal, added, registered, guard, __version__, lambda: gateway.is_draining)
    gateway.pages = pages
    settings = ProbeSettings(
        interval_s=config.probe_interval_s, timeout_s=config.probe_timeout_s, api_key=config.replica_api_key
    )

    def changed(replica: Replica, state: str) -> None:
        if state != "up":
            journal.went_down(replica.name)

    prober = Prober(gateway, settings, changed)
    memory = Memory(Path(config.index_file), not is_worker) if config.index_file is not None else None
    hub = DiscoveryHub({} if is_worker else sources, lambda endpoints: assembly.fleet_changed(endpoints))
    assembly = Assembly(gateway, hub, prober, journal, pages, memory)
    return assembly


def _router(config: GatewayConfig, index: PrefixIndex) -> tuple[Router, Journal]:
    breaker = BreakerSettings(failure_threshold=config.failure_threshold, recovery_s=config.recovery_s)
    fleet = Fleet(index, breaker)
    journal = Journal(fleet, index, time.monotonic)
    policy = get_policy(config.policy, Random(), index)
    settings = ProxySettings(max_attempts=config.max_attempts)
    return Router(
        fleet, policy, index, settings, journal, time.monotonic, time.time, _make_ids(), _pool
    ), journal  # fmt: skip


def _make_ids() -> Callable[[], str]:
    draw = Random().getrandbits  # seeded by the system; a call to the system for each id would cost more than the id
    return lambda: "req-%024x" % draw(96)  # noqa: UP031 - an f-string takes longer


def _pool(replica: Replica) -> UpstreamPool:
    return UpstreamPool(replica.endpoint, _upstream_tls() if replica.endpoint.tls else None)


@cache
def _upstream_tls() -> ssl.SSLContext:
    """The system's authorities, read once."""
    return ssl.create_default_context()
