"""`headrace doctor`: what this machine has, what would run on it, and what headrace says of a model."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from headrace import __version__
from headrace.cli.engine_arguments import add_engine_arguments, add_loading_arguments, settings_of
from headrace.config import EngineConfig
from headrace.errors import HeadraceError
from headrace.observability import machine

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = "headrace doctor [MODEL] [--json] [options]"
    parser.add_argument("model", metavar="MODEL", nargs="?", help="load this model, and say how it would run")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_loading_arguments(parser)
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 when something is in the way of running, else 0."""
    config = settings_of(arguments).engine
    report = {
        "headrace": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "packages": {name: _installed(name) for name in _PACKAGES},
        "cpu": machine.cpu(),
        "memory": machine.memory(),
        **_would_run(config),
    }
    if arguments.model is not None:
        report["model"] = _model(arguments, config)
    print(json.dumps(report, indent=2) if arguments.json else "\n".join(_lines(report)))
    return 1 if "problem" in report or "refused" in report.get("model", {}) else 0


def _installed(name: str) -> str | None:
    """Version of an installed package, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _would_run(config: EngineConfig) -> dict[str, Any]:
    """Devices and the choices that "auto" comes to; asks torch, which may be what is broken."""
    try:
        from headrace.model.attention.registry import available, choose
        from headrace.model.devices import devices
        from headrace.model.loader import resolve_device, resolve_dtype

        device = resolve_device(config.device)
        dtype = resolve_dtype("bfloat16" if config.dtype == "auto" else config.dtype)
        would_run = {
            "device": str(device),
            "dtype": "the checkpoint's" if config.dtype == "auto" else config.dtype,
            "attention": choose(config.attn_implementation, [], dtype, device).name,
            "attention_available": available(),
        }
        return {"devices": [asdict(device) for device in devices()], "would_run": would_run}
    except (HeadraceError, ImportError, OSError) as error:
        return {"problem": f"{type(error).__name__}: {error}"}


def _model(arguments: argparse.Namespace, config: EngineConfig) -> dict[str, Any]:
    """Load the model as an engine would, and describe it; or the reason why it is refused."""
    from headrace.engine.assembly import assemble

    try:
        engine = assemble(
            arguments.model, config, revision=arguments.revision, trust_remote_code=arguments.trust_remote_code
        )
    except HeadraceError as error:
        return {"name": arguments.model, "refused": str(error)}
    resolved = engine.config
    try:
        groups = [
            {
                "num_layers": len(group.layers),
                "window_tokens": group.window,
                "chunk_tokens": group.chunk,
                "kv_bytes_per_token": group.block_bytes // resolved.block_size,
            }
            for group in engine.groups
        ]
        return {
            "name": arguments.model,
            "class": type(engine.loaded.model).__name__,
            "num_parameters": sum(parameter.numel() for parameter in engine.loaded.model.parameters()),
            "device": str(engine.loaded.device),
            "dtype": str(engine.loaded.dtype).removeprefix("torch."),
            "num_layers": sum(len(group.layers) for group in engine.groups),
            "cache_groups": groups,
            "kv_bytes_per_token": sum(group["kv_bytes_per_token"] or 0 for group in groups),
            "num_blocks": resolved.num_blocks,
            "block_size": resolved.block_size,
            "max_model_len": resolved.max_model_len,
            "max_num_seqs": resolved.max_num_seqs,
            "max_num_batched_tokens": resolved.max_num_batched_tokens,
            **({"cpu_kernels": engine.surgery.as_dict()} if engine.surgery else {}),
        }
    finally:
        engine.core.runner.close()


def _lines(report: Any, indent: str = "") -> list[str]:
    """A nested report as indented `name: value` lines."""
    lines: list[str] = []
    for name, value in report.items():
        label = f"{indent}{name.replace('_', ' ').removesuffix(' bytes').removeprefix('num ')}:"
        if isinstance(value, dict) and all(isinstance(flag, bool) for flag in value.values()):
            lines.append(f"{label} {' '.join(flag if on else f'no-{flag}' for flag, on in value.items())}")
        elif isinstance(value, dict):
            lines += [label, *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [label, *(f"{indent}  {_inline(entry)}" for entry in value)]
        else:
            lines.append(f"{label} {_shown(name, value)}")
    return lines


def _inline(entry: dict[str, Any]) -> str:
    known = [(name, value) for name, value in entry.items() if value is not None]
    return ", ".join(f"{name.replace('_', ' ').removesuffix(' bytes')} {_shown(name, value)}" for name, value in known)


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none" if name.endswith("limit_bytes") else "not known"
    if name.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
