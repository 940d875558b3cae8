"""One JSON request over HTTP, for the few that headrace itself sends: blocking, without a proxy."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, NamedTuple

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class JsonAnswer(NamedTuple):
    """Attributes: body: None where it is no JSON."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        """What an error says of itself."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        told = error.get("message") if isinstance(error, dict) else None
        return str(told) if told else f"it answered {self.status}"


def call_json(
    method: str, url: str, body: Any = None, api_key: str | None = None, timeout_s: float = 5.0
) -> JsonAnswer:
    """Send a request and wait for its answer, whatever its status. Raises OSError when there is none."""
    headers = {"content-type": "application/json"}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with _OPENER.open(request, timeout=timeout_s) as response:
            return JsonAnswer(response.status, _decoded(response.read()))
    except urllib.error.HTTPError as error:
        with error:
            return JsonAnswer(error.code, _decoded(error.read()))
    except urllib.error.URLError as error:
        reason = error.reason
        raise reason if isinstance(reason, OSError) else OSError(str(reason)) from error
    except HTTPException as error:
        raise OSError(f"what came back is no HTTP: {error!r}") from error


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
