"""How an answer is to go on, as OpenAI's bodies say it, and as our options.

`top_k`, `regex` and `reads` are ours; endpoints that know no such field pass them over. Does not know messages.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mindset.calls.canonical import Json
from mindset.llm.request import Options
from mindset.llm.serve.body import Body
from mindset.llm.serve.errors import RefusedError

__all__ = ["MOST_ALTERNATIVES", "Count", "Sampling", "Seed", "StreamOptions", "options_of", "schema_of"]

MOST_ALTERNATIVES = 20
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Stop = Annotated[str, Field(min_length=1, max_length=1024)]


class StreamOptions(Body):
    """How a stream is told."""

    include_usage: bool | None = None
    """One more event at the end, with the usage and no choice."""


class PlainFormat(Body):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Body):
    """Some JSON object."""

    type: Literal["json_object"]


class NamedSchema(Body):
    """A JSON schema with a name."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class SchemaFormat(Body):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[PlainFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class Sampling(Body):
    """The options that chat and raw completions share."""

    model: str | None = None
    """None: the one that is served."""
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    seed: Seed | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    """Not looked at."""
    top_k: Count | None = None
    """Ours: draw from this many of the likeliest tokens."""
    regex: Annotated[str, Field(min_length=1, max_length=65536)] | None = None
    """Ours: an expression that the whole answer must match."""
    reads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Ours: this many of the memory's slots that spoke most, for each token."""


def options_of(body: Sampling, *, max_tokens: int | None, logprobs: int | None) -> Options:
    """Our options for a body's."""
    if body.n not in (None, 1):
        raise RefusedError(400, f"n={body.n}: one request has one answer here; ask {body.n} times", param="n")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Options(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        seed=body.seed,
        stop=stop,
        logprobs=logprobs,
        schema=schema_of(body.response_format),
        regex=body.regex,
        reads=body.reads,
        extra=_extra(body),
    )


def schema_of(asked: PlainFormat | ObjectFormat | SchemaFormat | None) -> dict[str, Json] | None:
    """The JSON schema that a format asks for."""
    if isinstance(asked, SchemaFormat):
        return asked.json_schema.schema_
    return {"type": "object"} if isinstance(asked, ObjectFormat) else None


def _extra(body: Sampling) -> dict[str, Json]:
    """What only some models know; nothing where it would change nothing."""
    given = {
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logit_bias": body.logit_bias,
    }
    return {name: value for name, value in given.items() if value}
