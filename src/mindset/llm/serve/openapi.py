"""GET /openapi.json: the table of endpoints as an OpenAPI document; the same models check the bodies.

Knows no endpoint by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic.json_schema import models_json_schema

from mindset.calls.canonical import Json
from mindset.llm.serve.endpoint import Endpoint

__all__ = ["document"]

_REFUSALS = {
    "400": "What was asked cannot be meant.",
    "401": "No token, or a wrong one.",
    "403": "Not from here.",
    "404": "No such path or model.",
    "413": "Too large.",
    "415": "Not JSON.",
    "429": "All places are taken; Retry-After says for how long.",
    "502": "The model behind it failed.",
    "503": "The server is stopping.",
    "504": "The model took too long.",
}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "One sentence."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Json]:
    """The document of a table."""
    bodies = list(dict.fromkeys(one.body for one in endpoints if one.body is not None))
    refs, schemas = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Json] = {}
    for one in endpoints:
        ref = None if one.body is None else refs[one.body, "validation"]
        paths.setdefault(_plain(one.path), {})[one.method.lower()] = _operation(one, ref)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mindset serve", "version": _version()},
        "paths": paths,
        "components": {
            "schemas": {**schemas.get("$defs", {}), "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _operation(one: Endpoint, ref: Any) -> dict[str, Json]:
    content: dict[str, Json] = {one.reply: {}}
    if one.body is not None:
        content.setdefault("application/json", {})
    if one.streams:
        content["text/event-stream"] = {}
    refused = {
        "description": "",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    operation: dict[str, Json] = {
        "summary": one.summary,
        "operationId": one.handle.__name__,
        "responses": {
            "200": {"description": one.summary, "content": content},
            **{status: refused | {"description": told} for status, told in _REFUSALS.items()},
        },
    }
    if "{name:path}" in one.path:
        operation["parameters"] = [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    if ref is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref}}}
    if one.open:
        operation["security"] = [{}]
    return operation


def _plain(path: str) -> str:
    return path.replace(":path}", "}")


def _version() -> str:
    try:
        return version("mindset-lm")
    except PackageNotFoundError:
        return "0"
