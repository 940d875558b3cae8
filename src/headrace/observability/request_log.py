"""One line for each request that ended: who, what, how long; never what was asked or answered."""

from __future__ import annotations

import logging
from typing import Any

from headrace.observability.request_record import RequestRecord

_log = logging.getLogger("headrace.request")


def log_request(record: RequestRecord) -> None:
    """Write a request's line; with level warning where the server failed it."""
    level = logging.WARNING if record.status >= 500 else logging.INFO
    if _log.isEnabledFor(level):
        _log.log(level, "%s %d", record.endpoint, record.status, extra={"fields": _fields(record)})


def _fields(record: RequestRecord) -> dict[str, Any]:
    return {
        "id": record.request_id,
        "model": record.model,
        "key": record.identity,
        "finish": ",".join(record.finish_reasons) or None,
        "error": record.error_code,
        "prompt": record.num_prompt_tokens,
        "cached": record.num_cached_tokens,
        "output": record.num_output_tokens,
        "queued_ms": _ms(record.queued_s),
        "ttft_ms": _ms(record.ttft_s),
        "tpot_ms": _ms(record.tpot_s),
        "e2e_ms": _ms(record.e2e_s),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 2)
