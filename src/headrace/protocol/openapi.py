"""The interface as an OpenAPI 3.1 document, made from the table of fields."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version
from typing import Any

from headrace.protocol.openapi_answers import ANSWERS, ERRORS
from headrace.protocol.table.endpoints import ENDPOINTS, Endpoint

_STATUSES = {
    400: "The request cannot be served as it was asked.",
    401: "No key, or one that is not valid.",
    403: "The key may not do this.",
    404: "There is no such model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "The queue is full, or the key has too many streams; Retry-After says when to try again.",
    500: "The request failed.",
    503: "No token can be made now, or the request waited too long.",
}
_DETAILS = {
    "x-request-id": "By which the log tells more; the client's own where it sends one.",
    "x-headrace-load": "How loaded this server is.",
}


def document(version: str = "") -> dict[str, Any]:
    """The document. Args: version: of headrace; the installed one where it is empty."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "headrace",
            "version": version or installed_version("headrace"),
            "license": {"name": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**_bodies(), **ANSWERS, **ERRORS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JWT."},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _bodies() -> dict[str, Any]:
    return {_body_name(item): item.body.schema() for item in ENDPOINTS if item.body is not None}


def _body_name(endpoint: Endpoint) -> str:
    return f"{endpoint.name}_request"


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "responses": {str(status): _answer(endpoint, status, media) for status, media in endpoint.answers},
    }
    for status in _failures(endpoint):
        error = _reference(f"{endpoint.style}_error")
        operation["responses"].setdefault(
            str(status), {"description": _STATUSES[status], "content": {"application/json": {"schema": error}}}
        )
    names = re.findall(r"{(\w+)}", endpoint.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if endpoint.body is not None:
        content = {"application/json": {"schema": _reference(_body_name(endpoint))}}
        operation["requestBody"] = {"required": not endpoint.admin, "content": content}
    if not endpoint.open:
        operation["security"] = [{"bearer": []}, {"x-api-key": []}, {}]
    return operation


def _failures(endpoint: Endpoint) -> list[int]:
    statuses = [500] if endpoint.open else [401, 403, 500, 503]
    if endpoint.body is not None:
        statuses += [400, 408, 413, 415]
    if endpoint.streams:
        statuses.append(429)
    if endpoint.body is not None or "{" in endpoint.path:
        statuses.append(404)
    return sorted(statuses)


def _answer(endpoint: Endpoint, status: int, media: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if media == "application/json":
        schema = _reference(f"{endpoint.name}_answer") if f"{endpoint.name}_answer" in ANSWERS else {"type": "object"}
    content: dict[str, Any] = {media: {"schema": schema}}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _DETAILS.items()}
    if endpoint.body is not None:
        headers["x-ignored-fields"] = {
            "description": "Paths of fields that are unknown here.",
            "schema": {"type": "string"},
        }
    description = "Done." if status < 300 else _STATUSES[status]
    return {"description": description, "headers": headers, "content": content}
