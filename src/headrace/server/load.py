"""How loaded the server is, for whoever spreads requests over servers: as JSON, and in a header of every answer."""

from __future__ import annotations

from headrace.engine.remote import EngineInfo, EngineLink, EngineStats
from headrace.server.overload import EngineRoom, WaitingLine

HEADER = b"x-headrace-load"

_NO_ROOM = EngineRoom(1, 0, 0, 0)


def engine_room(engine: EngineLink) -> EngineRoom:
    """What the engine can start at once, by its newest message."""
    info, stats = engine.info, engine.stats
    if info is None:
        return _NO_ROOM
    num_tokens = info.num_blocks * info.block_size
    if stats is None:
        return EngineRoom(info.max_num_seqs, num_tokens, 0, num_tokens)
    num_free = (info.num_blocks - stats.load.num_blocks_used) * info.block_size
    return EngineRoom(info.max_num_seqs, num_free, stats.load.num_waiting, num_tokens)


def load_header(engine: EngineLink, line: WaitingLine) -> bytes:
    """Such as `running=3,waiting=0,tokens=812,kv=0.12`.

    running, waiting: sequences that have a token, and those that have none. tokens: of both, prompt and output.
    kv: share of the cache's blocks that requests hold.
    """
    stats = engine.stats
    if stats is None or engine.info is None:
        return b"running=%d,waiting=%d,tokens=%d,kv=0.00" % (
            line.num_running,
            line.num_pending,
            line.num_pending_tokens,
        )
    return b"running=%d,waiting=%d,tokens=%d,kv=%.2f" % (
        line.num_running, line.num_pending, stats.load.num_running_tokens + stats.load.num_waiting_tokens,
        kv_ratio(engine.info, stats),
    )  # fmt: skip


def load_report(engine: EngineLink, line: WaitingLine) -> dict[str, object]:
    """The same with names, and the limits that it is to be read against."""
    stats, info, room = engine.stats, engine.info, engine_room(engine)
    return {
        "engine_state": engine.state,
        "num_running": line.num_running,
        "num_waiting": line.num_pending,
        "num_queued": line.num_queued(room),
        "num_running_tokens": stats.load.num_running_tokens if stats else 0,
        "num_waiting_tokens": line.num_pending_tokens,
        "num_cache_tokens": info.num_blocks * info.block_size if info else None,
        "kv_cache_usage_ratio": kv_ratio(info, stats) if stats and info else 0.0,
        "drain_rate_per_s": line.rate.per_second,
        "max_num_seqs": info.max_num_seqs if info else None,
        "max_queue_size": line.limits.max_requests,
        "max_queue_tokens": line.limits.max_tokens,
        "queue_timeout_s": line.limits.max_wait_s,
    }


def kv_ratio(info: EngineInfo, stats: EngineStats) -> float:
    """Share of the cache's blocks that requests hold, 0..1."""
    return stats.load.num_blocks_used / info.num_blocks if info.num_blocks else 0.0
