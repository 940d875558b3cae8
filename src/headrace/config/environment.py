"""What the process environment says; the one place that reads it.

HEADRACE_<NAME>       any setting: HEADRACE_NUM_BLOCKS=512; a list is divided by commas; "none" is None
MAX_BATCH_TOKENS, NUM_BLOCKS, BLOCK_SIZE, SAFETY_MARGIN, MAX_MEMORY_PERCENT, USE_CUDA_GRAPH
                      other names of settings (max_num_batched_tokens is the first's); HEADRACE_<NAME> wins
HEADRACE_CONFIG       the settings file
HEADRACE_PRESET       the preset
HEADRACE_CPU_ISA      the CPU kernels' instruction set: avx512bf16, avx512vnni, avx512, avx2 or portable
HEADRACE_CPU_THREADS  their threads, the calling one included
CUDA_VISIBLE_DEVICES  read by CUDA itself: the GPUs that there are

An empty variable is one that is not given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from headrace.config.nearest import nearest
from headrace.errors import ConfigError

PREFIX = "HEADRACE_"

ALIASES: Mapping[str, str] = {
    "MAX_BATCH_TOKENS": "max_num_batched_tokens",
    "NUM_BLOCKS": "num_blocks",
    "BLOCK_SIZE": "block_size",
    "SAFETY_MARGIN": "safety_margin",
    "MAX_MEMORY_PERCENT": "max_memory_percent",
    "USE_CUDA_GRAPH": "use_cuda_graph",
}
"""Further names of settings in the environment."""

BESIDE_SETTINGS = ("HEADRACE_CPU_ISA", "HEADRACE_CPU_THREADS", "CUDA_VISIBLE_DEVICES")
"""What is read elsewhere than in the settings: by the CPU kernels, and by CUDA."""

_KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
"""What Kubernetes and Docker links put into the environment of a container beside a service called headrace."""
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class CpuEnvironment:
    """How the CPU kernels should run; None: worked out from the machine."""

    isa: str | None = None
    num_threads: int | None = None


class Variable(NamedTuple):
    """An environment variable that gives a setting."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class SettingsEnvironment:
    """What the environment says of settings.

    Attributes:
        variables: by the setting's name. file: where the settings file is. preset: its name.
        beside: of BESIDE_SETTINGS, those that are given.
    """

    variables: Mapping[str, Variable]
    file: Variable | None
    preset: Variable | None
    beside: tuple[Variable, ...]


def read_cpu_environment(environ: Mapping[str, str] | None = None) -> CpuEnvironment:
    """Read the HEADRACE_CPU_… variables of `environ` (None: the process's). Raises ConfigError."""
    environ = os.environ if environ is None else environ
    threads = environ.get("HEADRACE_CPU_THREADS") or None
    if threads is not None and not (threads.isdecimal() and int(threads) >= 1):
        raise ConfigError(f"HEADRACE_CPU_THREADS={threads!r} must be an integer of at least 1")
    return CpuEnvironment(environ.get("HEADRACE_CPU_ISA") or None, int(threads) if threads else None)


def read_settings_environment(names: Iterable[str], environ: Mapping[str, str] | None = None) -> SettingsEnvironment:
    """Read what `environ` (None: the process's) says of the settings called `names`.

    Raises:
        ConfigError: a HEADRACE_… name that there is not, with the nearest.
    """
    environ = os.environ if environ is None else environ
    given = {name: text for name, text in environ.items() if text.strip() and not _is_kubernetes(name, text)}
    settings = {PREFIX + name.upper(): name for name in names}
    _check_names(given, [*settings, "HEADRACE_CONFIG", "HEADRACE_PRESET", *BESIDE_SETTINGS])
    sources = {**{alias: name for alias, name in ALIASES.items() if name in settings.values()}, **settings}
    variables = {name: Variable(source, given[source]) for source, name in sources.items() if source in given}
    return SettingsEnvironment(
        variables,
        _variable(given, "HEADRACE_CONFIG"),
        _variable(given, "HEADRACE_PRESET"),
        tuple(Variable(name, given[name]) for name in BESIDE_SETTINGS if name in given),
    )


def read_client_environment(environ: Mapping[str, str] | None = None) -> str | None:
    """The API key of a command that asks a server or gateway: HEADRACE_API_KEY. environ: None is the process's."""
    return (os.environ if environ is None else environ).get("HEADRACE_API_KEY") or None


def visible_gpus(environ: Mapping[str, str] | None = None, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """The GPUs that a process of this environment may use, as CUDA_VISIBLE_DEVICES names them: indices or UUIDs.

    Args:
        environ: None is the process's. devices: the folder of the system's devices.
    """
    given = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    if given is None:
        # CUDA counts those that it can open, whatever their numbers in the machine are.
        return tuple(map(str, range(len(list(devices.glob("nvidia[0-9]*"))))))
    found: list[str] = []
    for name in map(str.strip, given.split(",")):
        if not name or name.startswith("-"):
            break  # CUDA ignores what comes after a name that is none
        found.append(name)
    return tuple(found)


def child_environment(
    num_threads: int, environ: Mapping[str, str] | None = None, gpu: str | None = None
) -> dict[str, str]:
    """The environment of a `headrace serve` that gets its settings from a file: what else there is stays.

    Args:
        num_threads: of its CPU kernels, where HEADRACE_CPU_THREADS does not say. environ: None is the process's.
        gpu: the one that it is to use; None: any that there are.
    """
    environ = os.environ if environ is None else environ
    settings = {name for name in environ if name.startswith(PREFIX) and name not in BESIDE_SETTINGS} | ALIASES.keys()
    kept = {name: text for name, text in environ.items() if name not in settings}
    own = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    return {"HEADRACE_CPU_THREADS": str(num_threads)} | {n: text for n, text in kept.items() if text.strip()} | own


def _variable(given: Mapping[str, str], name: str) -> Variable | None:
    return Variable(name, given[name]) if name in given else None


def _check_names(given: Mapping[str, str], known: list[str]) -> None:
    for name in given:
        if name.startswith(PREFIX) and name not in known:
            raise ConfigError(f"environment: there is no {name}; did you mean {nearest(name, known)}?")


def _is_kubernetes(name: str, text: str) -> bool:
    if not name.startswith(PREFIX):
        return False
    return bool(_KUBERNETES.search(name)) or (name.endswith("_PORT") and bool(_KUBERNETES_PORT.match(text)))
