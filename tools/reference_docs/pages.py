"""docs/settings.md and docs/metrics.md, from the settings classes and the table of metrics."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from headrace.config import EngineConfig, GatewayConfig, ServerConfig
from headrace.config.environment import ALIASES
from headrace.config.fields import attribute_docs, field_kinds, secret_fields
from headrace.config.presets import PRESETS
from headrace.observability.metric_table import METRICS

_SETTINGS_HEAD = """\
# Settings

Made by `python -m tools.reference_docs` from the settings classes.

A value comes from, in rising order: its default, a preset, the file (`--config FILE`, TOML or YAML, one flat table),
the environment (`HEADRACE_<NAME>`), a flag (`--<name>` with dashes; `--no-<name>` turns off). `headrace config show`
takes the same flags and prints each value and where it came from. An unknown key or `HEADRACE_…` variable is an error
with the nearest name. "none" is None; in the environment a list is divided by commas, and an empty variable is one that
is not given. Secrets have no flag, as other users of a machine see command lines, and are never shown.

```toml
# headrace.toml
preset = "latency"
host = "0.0.0.0"
api_keys_file = "keys.txt"
num_blocks = 4096
```
"""

_ENVIRONMENT = """
## The environment besides

| variable | |
|---|---|
| `HEADRACE_CONFIG`, `HEADRACE_PRESET` | the settings file and the preset |
| `HEADRACE_CPU_ISA`, `HEADRACE_CPU_THREADS` | the CPU kernels' instruction set and threads |
{aliases}
| `CUDA_VISIBLE_DEVICES` | read by CUDA itself; `config show` repeats it |

What Kubernetes puts into a container beside a service called headrace (`HEADRACE_SERVICE_HOST`,
`HEADRACE_PORT=tcp://…`, …) is not taken for settings.
"""

_METRICS_HEAD = """\
# Metrics

Made by `python -m tools.reference_docs` from `observability/metric_table.py`; `GET /metrics` gives them to Prometheus.

Every metric also has the label `model` (`model_name` under a `vllm:` name). The further names are vLLM's, given where
the meaning is equal, so that dashboards and routers that were made for it work as they are; there the label `reason` is
`finished_reason`, with "abort" for "cancelled". Counters of the engine start again when its process does, which
`rate()` allows for. `process_…` are those of the HTTP process, by prometheus_client.

- decode/prefill ratio: `rate(headrace_computed_tokens_total{phase="decode"}[1m]) / ignoring(phase) \
rate(headrace_computed_tokens_total{phase="prefill"}[1m])`
- batch fill: `rate(headrace_step_rows_sum[1m]) / rate(headrace_step_rows_count[1m]) / headrace_max_running_requests`
- prefix cache hit ratio: `rate(headrace_cached_prompt_tokens_total[5m]) / rate(headrace_prompt_tokens_total[5m])`

| name | type | labels | meaning | vLLM's name |
|---|---|---|---|---|
"""


def settings_page() -> str:
    """docs/settings.md."""
    parts = [_SETTINGS_HEAD]
    for title, cls in (("Engine", EngineConfig), ("Server", ServerConfig), ("Gateway", GatewayConfig)):
        parts.append(f"\n## {title}\n\n| name | type | default | |\n|---|---|---|---|\n")
        parts += [_setting_row(cls, field.name, field.default) for field in fields(cls)]
    parts.append("\n## Presets\n")
    for name, preset in PRESETS.items():
        parts.append(f"\n### `{name}`: {preset.summary}\n\n| setting | value | why |\n|---|---|---|\n")
        for values in (preset.engine, preset.server):
            parts += [f"| `{setting}` | {value} | {reason} |\n" for setting, (value, reason) in values.items()]
    aliases = "\n".join(f"| `{alias}` | `{name}`; `HEADRACE_{name.upper()}` wins |" for alias, name in ALIASES.items())
    return "".join(parts) + _ENVIRONMENT.format(aliases=aliases)


def _setting_row(cls: type[Any], name: str, default: Any) -> str:
    kind = field_kinds(cls)[name]
    type_name = kind.scalar.__name__ + (", several" if kind.several else "") + (" or none" if kind.optional else "")
    secret = " Secret: file and environment only." if name in secret_fields(cls) else ""
    shown = "none" if default is None else "" if default == () else json.dumps(default)
    return f"| `{name}` | {type_name} | {shown} | {attribute_docs(cls)[name]}{secret} |\n"


def metrics_page() -> str:
    """docs/metrics.md."""
    rows = (
        f"| `{m.name}` | {m.kind} | {', '.join(m.labels)} | {m.help} | {', '.join(f'`{name}`' for name in m.vllm)} |\n"
        for m in METRICS
    )
    return _METRICS_HEAD + "".join(rows)


PAGES = {"settings.md": settings_page, "metrics.md": metrics_page}
