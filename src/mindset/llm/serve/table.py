"""All endpoints: the one table that routes, checks bodies and writes /openapi.json."""

from __future__ import annotations

from functools import cache

from mindset.llm.serve.about import HEALTH, METRICS
from mindset.llm.serve.chat import CHAT
from mindset.llm.serve.completions import COMPLETIONS
from mindset.llm.serve.embeddings import EMBEDDINGS
from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.forward import FORWARD
from mindset.llm.serve.models import MODEL, MODELS
from mindset.llm.serve.openapi import document
from mindset.llm.serve.responses import RESPONSES
from mindset.llm.serve.sse import Reply, dumped
from mindset.llm.serve.tokens import DECODE, ENCODE

__all__ = ["ENDPOINTS"]


@cache
def _document() -> bytes:
    return dumped(document(ENDPOINTS))


async def openapi(_: Asked) -> Reply:
    """The table as a document."""
    return Reply(_document())


ENDPOINTS: tuple[Endpoint, ...] = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    EMBEDDINGS,
    FORWARD,
    ENCODE,
    DECODE,
    MODELS,
    MODEL,
    HEALTH,
    METRICS,
    Endpoint("GET", "/openapi.json", "This document.", openapi, place=False),
)
