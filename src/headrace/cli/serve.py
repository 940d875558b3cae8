"""`headrace serve`: an OpenAI-compatible HTTP server of one model.

Exit codes: 0 stopped, all that ran was finished or had its time; 1 not foreseen; 2 a setting that cannot be; 3 the
model cannot be loaded; 4 the port is taken; 5 the engine failed for good; 130 ended at once by a second signal.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.engine_arguments import add_model_arguments, add_server_arguments, settings_of
from headrace.cli.open_files import allow_many_connections
from headrace.config import EngineConfig, ServerConfig
from headrace.errors import AddressNotAvailable, ConfigError, HeadraceError
from headrace.server import exit_codes

if TYPE_CHECKING:
    from headrace.engine.remote import EngineSpec, SimulatedSpec
    from headrace.text import Tokenizer

_EPILOG = """\
exit codes:
  0    stopped by SIGTERM, SIGINT or /admin/drain; what ran was finished, or had drain_timeout_s for it
  1    something that was not foreseen
  2    a flag or setting that cannot be
  3    the model cannot be loaded
  4    the port is taken, or the address is none of this machine
  5    the engine failed for good
  130  ended at once by a second signal
"""

_SWITCH_INTERVAL_S = 0.001
"""Threads that go through long texts hand the interpreter over this often; Python's own 5 ms would show in the ITL."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_model_arguments(parser)
    parser.add_argument(
        "--simulated",
        action="append",
        metavar="KEY=VALUE",
        help="a cost model in place of the model, for load tests, such as step_s=0.02; MODEL's tokenizer is used; may "
        "be given several times",
    )
    add_server_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; returns the exit code."""
    settings = settings_of(arguments, (EngineConfig, ServerConfig))
    server, engine = settings.server, settings.engine
    spec = _spec(arguments, engine, server.log_level)
    from headrace.server import listen

    try:
        listener = listen.bind(server)
    except AddressNotAvailable as error:
        print(f"headrace: error: {error}", file=sys.stderr)
        return exit_codes.ADDRESS_NOT_AVAILABLE
    from headrace.observability.logs import LogPlan, setup

    logs = setup(LogPlan(server.log_level, server.log_format, Path(server.log_file) if server.log_file else None))
    url = listen.url(server, listener)
    try:
        return _served(arguments, server, spec, listener, url, logs.flush)
    except ConfigError:
        raise
    except HeadraceError as error:
        logs.flush()
        print(f"headrace: error: {error}", file=sys.stderr)
        return exit_codes.MODEL_NOT_LOADED
    finally:
        listener.close()
        logs.close()


def _spec(arguments: argparse.Namespace, engine: EngineConfig, log_level: str) -> EngineSpec:
    from headrace.engine.remote import EngineSpec

    return EngineSpec(
        model=arguments.model,
        # The server's own queue is the one that is bounded: it can say when to try again.
        config=replace(engine, max_queue_size=None),
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
        simulated=_simulated(arguments.simulated),
        log_level=log_level.upper(),
    )


def _simulated(given: list[str] | None) -> SimulatedSpec | None:
    if given is None:
        return None
    from headrace.engine.remote import SimulatedSpec

    known = {name: type(getattr(SimulatedSpec(), name)) for name in SimulatedSpec.__struct_fields__}
    values: dict[str, object] = {}
    for pair in given:
        name, _, text = pair.partition("=")
        kind = known.get(name)
        if kind not in (int, float):
            numbers = [name for name, kind in known.items() if kind in (int, float)]
            raise ConfigError(f"--simulated {pair!r}: it takes KEY=VALUE with one of {', '.join(numbers)}")
        try:
            values[name] = kind(text)
        except ValueError:
            raise ConfigError(f"--simulated {pair!r}: the value must be of type {kind.__name__}") from None
    return SimulatedSpec(**values)  # type: ignore[arg-type]


def _served(
    arguments: argparse.Namespace,
    config: ServerConfig,
    spec: EngineSpec,
    listener: socket.socket,
    url: str,
    flush: Callable[[], None],
) -> int:
    import uvloop

    from headrace.engine.garbage import collections_paused, leave_out_of_collections
    from headrace.engine.remote.process import EngineProcess
    from headrace.server.lifecycle import ServerLife

    allow_many_connections()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    starting = ExitStack()

    def load_tokenizer() -> Tokenizer:
        from headrace.server.tokenizers import tokenizer_of

        return tokenizer_of(arguments.tokenizer or arguments.model, arguments.revision, arguments.trust_remote_code)

    def announce() -> None:
        starting.close()
        leave_out_of_collections()
        flush()  # so that the URL is the last line
        print(f"headrace: serving {spec.model} at {url}", file=sys.stderr, flush=True)

    async def serve() -> int:
        life = ServerLife(
            config,
            spec.model,
            listener,
            lambda on_change, on_stats: EngineProcess(spec, on_change=on_change, on_stats=on_stats),
            load_tokenizer,
            announce,
        )
        return await life.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, starting:
        starting.enter_context(collections_paused())
        return runner.run(serve())
