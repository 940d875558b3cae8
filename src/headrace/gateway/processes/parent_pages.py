"""The pages of a gateway of several processes: the parent answers for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.gateway.gateway import OwnAnswer
from headrace.gateway.http.messages import Request
from headrace.gateway.pages import Pages
from headrace.gateway.processes.parent import Processes
from headrace.gateway.replica import Replica

_BY_WEIGHT = ("down", "ejected", "trial", "busy", "draining")
"""What one process sees and the parent does not is told, the gravest first."""


class ParentPages(Pages):
    """Waits for what every process has to tell, before and after.

    Attributes: processes: of the gateway.
    """

    processes: Processes

    async def answer(self, request: Request) -> OwnAnswer:
        """Answer a request that came to any of them."""
        await self.processes.settle()
        answer = await super().answer(request)
        if request.method != b"GET":
            await self.processes.settle()
        return answer

    async def decided(self, request: Request) -> OwnAnswer:
        """The newest decisions of all processes."""
        limit = self.decision_limit(request)
        found: list[dict[str, Any]] = []
        for answer in await self.processes.ask_all(request):
            found += msgspec.json.decode(answer.body)["decisions"]
        found.sort(key=lambda decision: decision["at_s"], reverse=True)
        return OwnAnswer(200, msgspec.json.encode({"decisions": found[:limit]}))

    def described(self, replica: Replica, now_s: float) -> dict[str, Any]:
        """With how each process sees it; of those the gravest is the fleet's word."""
        told = super().described(replica, now_s)
        seen: Mapping[str, str] = self.processes.conditions.get(replica.name, {})
        grave = [condition for condition in _BY_WEIGHT if condition in seen.values()]
        if told["condition"] == "ready" and grave:
            told["condition"] = grave[0]
        return {**told, "processes": dict(seen)}
