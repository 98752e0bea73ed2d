"""POST /v1/forward: the inside of one pass: logits, hidden states, attention, and the slots that were read.

Arrays come as JSON (base64 of little-endian rows, with shape and dtype), or, for `Accept: application/octet-stream`,
as one safetensors file whose metadata `mindset` is the rest of the reply as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Annotated

import numpy as np
from pydantic import Field

from mindset.calls.canonical import Json
from mindset.llm.events import Forward
from mindset.llm.request import ForwardRequest
from mindset.llm.serve.answering import finite
from mindset.llm.serve.body import Body
from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.sse import Reply, dumped
from mindset.llm.serve.tokens import TokenId

__all__ = ["BINARY", "FORWARD", "ForwardBody", "arrays_of", "check_size"]

BINARY = "application/octet-stream"


class ForwardBody(Body):
    """A text to pass over, and what is wanted of it."""

    model: str | None = None
    prompt: str | None = None
    ids: Annotated[list[TokenId], Field(min_length=1)] | None = None
    """Tokens in place of text; one of the two."""
    logits: bool = True
    hidden_states: bool = False
    attention: bool = False
    reads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """How many slots of each of the memory's banks."""
    last: bool = False
    """The last position only."""


async def forward(asked: Asked) -> Reply:
    """One pass over a text."""
    body: ForwardBody = asked.body
    asked.desk.check_count("tokens", len(body.ids or ()), asked.desk.limits.ids)
    request = ForwardRequest(
        prompt=body.prompt,
        ids=None if body.ids is None else tuple(body.ids),
        logits=body.logits,
        hidden_states=body.hidden_states,
        attention=body.attention,
        reads=body.reads,
        last=body.last,
    )
    found = await asked.desk.client.forward(request, timeout=asked.timeout)
    asked.desk.metrics.used(found.usage)
    check_size(found, asked.desk.limits)
    write = _safetensors if BINARY in asked.accept else _json
    return await asyncio.to_thread(write, found)


def arrays_of(found: Forward) -> dict[str, np.ndarray]:
    """What a pass held, by name, little-endian."""
    named = {"logits": found.logits, "hidden_states": found.hidden_states, "attention": found.attention}
    return {
        name: np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        for name, array in named.items()
        if array is not None
    }


def check_size(found: Forward, limits: Limits) -> None:
    """Refuse to send more than is granted."""
    size = sum(array.nbytes for array in arrays_of(found).values())
    if size > limits.reply_bytes:
        raise RefusedError(
            413, f"{size:,} bytes of arrays; at most {limits.reply_bytes:,}: ask for a shorter text, fewer of them, or "
            "the last position only",
        )  # fmt: skip


def _json(found: Forward) -> Reply:
    arrays = {
        name: {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "data": base64.b64encode(array.tobytes()).decode(),
        }
        for name, array in arrays_of(found).items()
    }
    return Reply(dumped(_rest(found) | {"arrays": arrays}))


def _safetensors(found: Forward) -> Reply:
    from safetensors.numpy import save

    rest = json.dumps(_rest(found), allow_nan=False)
    return Reply(save(arrays_of(found), {"mindset": rest}), media_type=BINARY)


def _rest(found: Forward) -> dict[str, Json]:
    return {
        "object": "forward",
        "model": found.model,
        "content_hash": found.content_hash,
        "ids": list(found.ids),
        "reads": [
            [
                {
                    "layer": one.layer,
                    "slot": one.slot,
                    "influence": finite(one.influence),
                    "overlay": one.overlay,
                }
                for one in some
            ]
            for some in found.reads
        ],
        "usage": {"prompt_tokens": found.usage.prompt_tokens, "total_tokens": found.usage.prompt_tokens},
    }


FORWARD = Endpoint("POST", "/v1/forward", "The inside of one pass.", forward, body=ForwardBody, reply=BINARY)
