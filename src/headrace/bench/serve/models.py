"""Which model a server has."""

from __future__ import annotations

import http.client
import json
import ssl

from headrace.bench.serve.client import Target
from headrace.errors import ConfigError


def first_model(target: Target) -> str:
    """Id of the first model that a server lists. Raises ConfigError when no server answers there."""
    path = target.path.removesuffix("/chat/completions").removesuffix("/completions") + "/models"
    address = f"{target.host}:{target.port}{path}"
    connection = http.client.HTTPConnection(target.host, target.port, timeout=10)
    if target.tls:
        tls = ssl.create_default_context()
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=10, context=tls)
    try:
        connection.request("GET", path, headers=dict(target.headers))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ConfigError(f"{address} answers {answer.status}: {body[:200].decode(errors='replace')}")
        return str(json.loads(body)["data"][0]["id"])
    except (OSError, http.client.HTTPException) as error:
        raise ConfigError(f"no server answers at {address}: {error}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{address} lists no models; say which one to ask for with --model") from error
    finally:
        connection.close()
