"""POST /v1/embeddings: one vector a text."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mindset.calls.canonical import Json
from mindset.llm.serve.asked_options import Count
from mindset.llm.serve.body import Body
from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.sse import Reply, json_reply

__all__ = ["EMBEDDINGS", "EmbeddingBody"]


class EmbeddingBody(Body):
    """Texts to embed."""

    model: str | None = None
    input: str | Annotated[list[str], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    """base64: float32, little-endian."""
    dimensions: Count | None = None
    """Only what the model has."""
    user: str | None = None
    """Not looked at."""


async def embed(asked: Asked) -> Reply:
    """Embed texts."""
    body: EmbeddingBody = asked.body
    texts = [body.input] if isinstance(body.input, str) else body.input
    if len(texts) > asked.desk.limits.texts:
        raise RefusedError(
            413, f"{len(texts):,} texts in one request; at most {asked.desk.limits.texts:,}", param="input"
        )
    if "" in texts:
        raise RefusedError(400, "input: an empty text has no vector", param="input")
    found = await asked.desk.client.embed(texts, timeout=asked.timeout)
    asked.desk.metrics.used(found.usage)
    if body.dimensions not in (None, found.vectors.shape[1]):
        raise RefusedError(
            400, f"dimensions={body.dimensions}: this model has {found.vectors.shape[1]}", param="dimensions"
        )
    data = [
        {"object": "embedding", "index": place, "embedding": _written(vector, body.encoding_format)}
        for place, vector in enumerate(found.vectors)
    ]
    read = found.usage.prompt_tokens
    return json_reply(
        {
            "object": "list",
            "data": data,
            "model": body.model or asked.desk.names[0],
            "usage": {"prompt_tokens": read, "total_tokens": read},
        }
    )


def _written(vector: np.ndarray, how: str | None) -> Json:
    if how == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return np.nan_to_num(vector.astype(np.float64)).tolist()


EMBEDDINGS = Endpoint("POST", "/v1/embeddings", "One vector a text.", embed, body=EmbeddingBody)
