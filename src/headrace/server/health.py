"""Whether a token could be made now. After each start the engine proves it, with a request like any other."""

from __future__ import annotations

import asyncio
import logging

from headrace.engine.outputs import EngineOutput
from headrace.engine.remote import EngineLink
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import HeadraceError

_log = logging.getLogger(__name__)

_RETRY_S = 1.0
_PROOF = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)


class Readiness:
    """What /health/ready says.

    Args:
        engine: whose.

    Attributes:
        is_draining: set when no new work is taken.
        missing: what else is needed before a request can be served, in words; None: nothing.
    """

    def __init__(self, engine: EngineLink) -> None:
        """Nothing proven yet."""
        self.is_draining = False
        self.missing: str | None = "the tokenizer is being loaded"
        self._engine = engine
        self._proven_pid: int | None = None
        self._last_failure: str | None = None
        self._num_proofs = 0
        self._proof: asyncio.Task[None] | None = None

    def reason(self) -> str | None:
        """Why a token cannot be made now, in words; None when one can."""
        engine = self._engine
        if self.is_draining:
            return "the server drains: it finishes what it has"
        if engine.state != "ready":
            return f"the engine is {engine.state}: {engine.trouble or 'nothing is known of why'}"
        if self.missing is not None:
            return self.missing
        if self._proven_pid is None or self._proven_pid != self._pid():
            return self._last_failure or "the engine has not made a token yet"
        return None

    def engine_changed(self) -> None:
        """The engine's state is another; starts the proof of one that became ready."""
        if self._engine.state == "ready" and (self._proof is None or self._proof.done()):
            # As a task: the engine tells of its state a moment before it says which process it is.
            self._proof = asyncio.get_running_loop().create_task(self._prove(), name="headrace-proof")

    async def proven(self) -> None:
        """Wait for the proof that is under way."""
        if self._proof is not None:
            await self._proof

    async def close(self) -> None:
        """End a proof that is under way."""
        if self._proof is not None:
            self._proof.cancel()
            await asyncio.gather(self._proof, return_exceptions=True)

    async def _prove(self) -> None:
        await asyncio.sleep(0)
        while self._engine.state in ("ready", "stalled") and self._proven_pid != self._pid():
            self._num_proofs += 1
            error = await self._one_token(f"proof-{self._num_proofs}")
            if error is None:
                # Had the process ended meanwhile, the next one would have been given the request.
                self._proven_pid, self._last_failure = self._pid(), None
                return
            self._last_failure = f"the engine could not make a token: {error}"
            _log.warning("%s", self._last_failure)
            await asyncio.sleep(_RETRY_S)

    def _pid(self) -> int | None:
        return None if self._engine.info is None else self._engine.info.pid

    async def _one_token(self, request_id: str) -> HeadraceError | None:
        done: asyncio.Future[EngineOutput] = asyncio.get_running_loop().create_future()

        def take(output: EngineOutput) -> None:
            if output.finished and not done.done():
                done.set_result(output)

        try:
            self._engine.submit(self._engine.intake.requests([0], _PROOF, request_id), take)
        except HeadraceError as error:
            return error
        return (await done).error
