"""The limit of open files: a connection is one."""

from __future__ import annotations

_MANY_FILES = 1 << 16


def allow_many_connections() -> None:
    """Raise the limit as far as this user may."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
