"""GET /health, /metrics and /openapi.json: what is said of the server itself."""

from __future__ import annotations

from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.metrics import CONTENT_TYPE
from mindset.llm.serve.sse import Reply, json_reply

__all__ = ["HEALTH", "METRICS"]


async def health(asked: Asked) -> Reply:
    """Whether requests are taken."""
    desk = asked.desk
    told = {
        "status": "draining" if desk.draining else "ok",
        "taken": desk.taken,
        "places": desk.limits.places,
    }
    return json_reply(told, 503 if desk.draining else 200)


async def metrics(asked: Asked) -> Reply:
    """What was counted."""
    desk = asked.desk
    text = desk.metrics.text(desk.names[0], taken=desk.taken, draining=desk.draining)
    return Reply(text.encode(), media_type=CONTENT_TYPE)


HEALTH = Endpoint("GET", "/health", "Whether requests are taken.", health, open=True, place=False)
METRICS = Endpoint("GET", "/metrics", "Counts, for Prometheus.", metrics, reply=CONTENT_TYPE, place=False)
