"""headrace: serves any decoder of Hugging Face transformers by continuous batching.

Names are imported when they are first used, so that `import headrace` stays light (no torch).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "LLM": "headrace.engine.llm",
    "RequestHandle": "headrace.engine.handle",
    "SamplingParams": "headrace.engine.sampling_params",
    "GuideSpec": "headrace.text.guides.spec",
    "RequestOutput": "headrace.engine.results",
    "CompletionOutput": "headrace.engine.results",
    "StreamDelta": "headrace.engine.results",
    "EngineConfig": "headrace.config",
    "ContinuousBatchingManager": "headrace.engine.manager",
    "GenerationOutput": "headrace.engine.manager",
    "RequestStatus": "headrace.engine.request",
    "generate_batch": "headrace.engine.batch",
    "HeadraceError": "headrace.errors",
}

__all__ = ["__version__", *sorted(_EXPORTS)]  # names of the lazy table

if TYPE_CHECKING:
    from headrace.config import EngineConfig as EngineConfig
    from headrace.engine.batch import generate_batch as generate_batch
    from headrace.engine.handle import RequestHandle as RequestHandle
    from headrace.engine.llm import LLM as LLM
    from headrace.engine.manager import ContinuousBatchingManager as ContinuousBatchingManager
    from headrace.engine.manager import GenerationOutput as GenerationOutput
    from headrace.engine.request import RequestStatus as RequestStatus
    from headrace.engine.results import CompletionOutput as CompletionOutput
    from headrace.engine.results import RequestOutput as RequestOutput
    from headrace.engine.results import StreamDelta as StreamDelta
    from headrace.engine.sampling_params import SamplingParams as SamplingParams
    from headrace.errors import HeadraceError as HeadraceError
    from headrace.text.guides.spec import GuideSpec as GuideSpec


def __getattr__(name: str) -> Any:
    """Import an exported name on first use."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value
