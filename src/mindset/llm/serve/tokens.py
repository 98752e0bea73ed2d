"""POST /v1/encode and /v1/decode: text to the model's tokens and back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mindset.llm.serve.body import Body
from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.sse import Reply, json_reply

__all__ = ["DECODE", "ENCODE", "DecodeBody", "EncodeBody", "TokenId"]

TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class EncodeBody(Body):
    """A text."""

    model: str | None = None
    text: str


class DecodeBody(Body):
    """Tokens by number."""

    model: str | None = None
    ids: list[TokenId]


async def encode(asked: Asked) -> Reply:
    """The tokens of a text."""
    ids = await asked.desk.client.encode(asked.body.text, timeout=asked.timeout)
    return json_reply({"object": "tokens", "ids": list(ids), "count": len(ids)})


async def decode(asked: Asked) -> Reply:
    """The text of tokens."""
    asked.desk.check_count("tokens", len(asked.body.ids), asked.desk.limits.ids)
    text = await asked.desk.client.decode(asked.body.ids, timeout=asked.timeout)
    return json_reply({"object": "text", "text": text})


ENCODE = Endpoint("POST", "/v1/encode", "The tokens of a text.", encode, body=EncodeBody)
DECODE = Endpoint("POST", "/v1/decode", "The text of tokens.", decode, body=DecodeBody)
