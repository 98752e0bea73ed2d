"""GET /v1/models: what is served, and what it can do."""

from __future__ import annotations

from dataclasses import asdict

from mindset.calls.canonical import Json
from mindset.llm.serve.desk import Desk
from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.sse import Reply, json_reply

__all__ = ["MODEL", "MODELS"]


async def models(asked: Asked) -> Reply:
    """List the names that may be asked for."""
    data = [await _told(asked.desk, name) for name in asked.desk.names]
    return json_reply({"object": "list", "data": data})


async def model(asked: Asked) -> Reply:
    """One of them."""
    name = asked.path["name"]
    if not name:
        raise RefusedError(404, "name a model after /v1/models/", code="model_not_found")
    asked.desk.check_model(name)
    return json_reply(await _told(asked.desk, name))


async def _told(desk: Desk, name: str) -> dict[str, Json]:
    can = asdict(desk.client.capabilities)
    return {
        "id": name,
        "object": "model",
        "created": int(desk.begun),
        "owned_by": "mindset",
        "capabilities": sorted(word for word, able in can.items() if able),
        "content_hash": await desk.client.content_hash(),
    }


MODELS = Endpoint("GET", "/v1/models", "The models that are served.", models, place=False)
MODEL = Endpoint("GET", "/v1/models/{name:path}", "One model.", model, place=False)
