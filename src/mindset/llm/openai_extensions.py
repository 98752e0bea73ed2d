"""Embeddings, and the paths that mindset's own server adds to OpenAI's: what is asked, what an answer means."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from mindset.calls.call import Usage
from mindset.calls.canonical import Json
from mindset.errors import CallError
from mindset.llm.events import Embeddings, Forward, Read
from mindset.llm.openai_chunks import usage_in
from mindset.llm.request import ForwardRequest

__all__ = ["embeddings_in", "forward_body", "forward_in"]


def embeddings_in(told: Mapping[str, Any], texts: int, name: str) -> Embeddings:
    """The vectors of an answer, in the order of the texts."""
    rows = sorted(told["data"], key=lambda row: row.get("index", 0))
    if len(rows) != texts:
        raise CallError(f"{texts} texts were sent, and {len(rows)} vectors came back")
    vectors = np.stack([_vector(row["embedding"]) for row in rows])
    return Embeddings(vectors, usage_in(told.get("usage") or {}), str(told.get("model") or name))


def forward_body(request: ForwardRequest, name: str) -> dict[str, Json]:
    """What /forward is asked."""
    body: dict[str, Json] = {
        "model": name,
        "logits": request.logits,
        "hidden_states": request.hidden_states,
        "attention": request.attention,
        "last": request.last,
    }
    if request.prompt is not None:
        body["prompt"] = request.prompt
    if request.ids is not None:
        body["ids"] = list(request.ids)
    if request.reads is not None:
        body["reads"] = request.reads
    return body


def forward_in(told: Mapping[str, Any]) -> Forward:
    """What one pass held."""
    arrays = {name: _array(array) for name, array in told["arrays"].items()}
    reads = tuple(
        tuple(Read(one["layer"], one["slot"], one["influence"], one.get("overlay")) for one in position)
        for position in told.get("reads") or ()
    )
    return Forward(
        tuple(told["ids"]),
        arrays.get("logits"),
        arrays.get("hidden_states"),
        arrays.get("attention"),
        reads,
        str(told.get("model") or ""),
        told.get("content_hash"),
        Usage((told.get("usage") or {}).get("prompt_tokens") or 0),
    )


def _vector(told: Any) -> np.ndarray:
    if isinstance(told, str):
        return np.frombuffer(base64.b64decode(told), dtype="<f4").astype(np.float32)
    return np.asarray(told, dtype=np.float32)


def _array(told: Mapping[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(told["data"]), dtype=np.dtype(told["dtype"]))
    return flat.reshape(told["shape"]).astype(np.float32)
