"""Announces a server to a gateway for as long as it serves.

The gateway's lease is renewed at a third of its length, so two announcements may be lost. A gateway that is not there,
or was started again, gets the announcement as soon as it answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from headrace.config.server import ServerConfig
from headrace.protocol.json_call import JsonAnswer, call_json

_log = logging.getLogger(__name__)

_RETRY_S = 2.0
_MOST_S = 10.0
_TIMEOUT_S = 3.0


class Registration:
    """Of one server at the gateway that its settings name.

    Args:
        config: of the server, with `register`. url: where the server listens. models: that it serves.
    """

    def __init__(self, config: ServerConfig, url: str, models: Sequence[str]) -> None:
        """Nothing is said yet."""
        assert config.register is not None
        url = config.advertise_url or url
        self.name = config.register_name or url.partition("://")[2]
        self._gateway = config.register.rstrip("/")
        self._key = config.register_key
        self._announcement = {"url": url, "name": self.name, "models": list(models)}
        self._task: asyncio.Task[None] | None = None
        self._trouble: str | None = None

    def start(self) -> None:
        """Announce it, again and again."""
        self._task = asyncio.get_running_loop().create_task(self._announce(), name="headrace-registration")

    async def withdraw(self) -> None:
        """Say that it goes; a gateway that does not hear of it finds out when the lease runs out."""
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await self._call("DELETE", f"/admin/register/{quote(self.name, safe='')}", None)
        except OSError as error:
            _log.warning("the gateway %s cannot be told that this server goes: %s", self._gateway, error)

    async def _announce(self) -> None:
        while True:
            pause_s = _RETRY_S
            try:
                answer = await self._call("POST", "/admin/register", self._announcement)
            except OSError as error:
                self._tell(f"cannot be reached: {error}")
            else:
                if answer.status == 200:
                    self._tell(None)
                    pause_s = min(_lease_s(answer.body) / 3, _MOST_S)
                else:
                    self._tell(f"does not take this server: {answer.message}")
            await asyncio.sleep(pause_s)

    async def _call(self, method: str, path: str, body: Any) -> JsonAnswer:
        return await asyncio.to_thread(call_json, method, self._gateway + path, body, self._key, _TIMEOUT_S)

    def _tell(self, trouble: str | None) -> None:
        """Log what is new."""
        if trouble is not None and trouble != self._trouble:
            _log.warning("the gateway %s %s; it is tried again", self._gateway, trouble)
        elif trouble is None and self._trouble != "":
            _log.info("registered as %s at the gateway %s", self.name, self._gateway)
        self._trouble = trouble if trouble is not None else ""


def _lease_s(body: Any) -> float:
    lease_s = body.get("lease_s") if isinstance(body, dict) else None
    return float(lease_s) if isinstance(lease_s, int | float) and lease_s > 0 else 30.0
