"""What a model answers as messages of llm.proto, and back.

Invariant: `read_event(event_message(event))` is `event`; arrays come back bit for bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, cast, get_args

import numpy as np

from mindset.calls.call import Usage
from mindset.errors import FormatError
from mindset.llm.events import (
    Alternative,
    Embeddings,
    Event,
    Finished,
    FinishReason,
    Forward,
    Read,
    ReasoningPiece,
    Retried,
    Started,
    TextPiece,
    Token,
    ToolCallPiece,
)
from mindset.llm.serve import llm_pb2 as pb

__all__ = [
    "ForwardParts",
    "embed_message",
    "event_message",
    "forward_parts",
    "read_embeddings",
    "read_event",
]

CHUNK_BYTES = 1 << 20
"""What a tensor is cut to, so that every gRPC client takes a part."""
_DTYPE = re.compile(r"<[fiu][248]|\|[iu]1")
_LARGEST = 1 << 40


def event_message(event: Event) -> pb.Event:
    """An event, to send."""
    if isinstance(event, Started):
        return pb.Event(started=pb.Started(model=event.model, content_hash=event.content_hash))
    if isinstance(event, TextPiece):
        tokens = [_token(token) for token in event.tokens]
        return pb.Event(text=pb.TextPiece(text=event.text, tokens=tokens))
    if isinstance(event, ReasoningPiece):
        return pb.Event(reasoning=pb.Reasoning(text=event.text, signature=event.signature))
    if isinstance(event, ToolCallPiece):
        piece = pb.ToolCallPiece(index=event.index, id=event.id, name=event.name, arguments=event.arguments)
        return pb.Event(tool_call=piece)
    if isinstance(event, Retried):
        return pb.Event(retried=pb.Retried(reason=event.reason, wait=event.wait))
    return pb.Event(finished=pb.Finished(reason=event.reason, usage=_usage(event.usage)))


def read_event(told: pb.Event) -> Event:
    """The event that came."""
    kind = told.WhichOneof("kind")
    if kind == "started":
        return Started(told.started.model, _hash(told.started))
    if kind == "text":
        return TextPiece(told.text.text, tuple(_read_token(token) for token in told.text.tokens))
    if kind == "reasoning":
        signed = told.reasoning.HasField("signature")
        return ReasoningPiece(told.reasoning.text, told.reasoning.signature if signed else None)
    if kind == "tool_call":
        piece = told.tool_call
        return ToolCallPiece(piece.index, piece.id, piece.name, piece.arguments)
    if kind == "retried":
        return Retried(told.retried.reason, told.retried.wait)
    if kind == "finished" and told.finished.reason in get_args(FinishReason):
        return Finished(cast(FinishReason, told.finished.reason), _read_usage(told.finished.usage))
    raise FormatError("an event of a kind that this release does not know; use one release on both sides")


def embed_message(found: Embeddings) -> pb.EmbedReply:
    """Vectors, to send."""
    (vectors,) = _tensors("embeddings", found.vectors, found.vectors.nbytes or 1)
    return pb.EmbedReply(model=found.model, vectors=vectors, usage=_usage(found.usage))


def read_embeddings(told: pb.EmbedReply) -> Embeddings:
    """The vectors that came."""
    arrays = _Arrays()
    arrays.add(told.vectors)
    return Embeddings(arrays.whole()["embeddings"], _read_usage(told.usage), told.model)


def forward_parts(found: Forward) -> Iterator[pb.ForwardPart]:
    """A pass in parts: first all but its arrays."""
    yield pb.ForwardPart(
        model=found.model,
        content_hash=found.content_hash,
        usage=_usage(found.usage),
        ids=found.ids,
        reads=[pb.Reads(reads=[_read(one) for one in some]) for some in found.reads],
    )
    for name in ("logits", "hidden_states", "attention"):
        array = getattr(found, name)
        if array is not None:
            for tensor in _tensors(name, array, CHUNK_BYTES):
                yield pb.ForwardPart(tensors=[tensor])


class ForwardParts:
    """A pass that is put together as it comes."""

    def __init__(self) -> None:
        self._head: pb.ForwardPart | None = None
        self._arrays = _Arrays()

    def add(self, part: pb.ForwardPart) -> None:
        """One more part."""
        if self._head is None:
            self._head = part
        for tensor in part.tensors:
            self._arrays.add(tensor)

    def whole(self) -> Forward:
        """All of it."""
        head = self._head
        if head is None:
            raise FormatError("a pass came without its first part")
        arrays = self._arrays.whole()
        return Forward(
            tuple(head.ids),
            arrays.get("logits"),
            arrays.get("hidden_states"),
            arrays.get("attention"),
            tuple(tuple(_read_read(one) for one in some.reads) for some in head.reads),
            head.model,
            _hash(head),
            _read_usage(head.usage),
        )


class _Arrays:
    """Arrays whose parts come in any order."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[np.ndarray, int]] = {}

    def add(self, told: pb.Tensor) -> None:
        """One more part."""
        array, come = self._made.get(told.name) or (self._new(told), 0)
        flat = array.reshape(-1).view(np.uint8)
        stop = told.offset + len(told.data)
        if told.offset < 0 or stop > flat.nbytes:
            raise FormatError(f"{told.name}: a part lies outside of its shape {list(array.shape)}")
        flat[told.offset : stop] = np.frombuffer(told.data, np.uint8)
        self._made[told.name] = array, come + len(told.data)

    def whole(self) -> dict[str, np.ndarray]:
        """All that came; each is complete."""
        for name, (array, come) in self._made.items():
            if come != array.nbytes:
                raise FormatError(f"{name}: {come:,} bytes came of {array.nbytes:,}")
        return {name: array for name, (array, _) in self._made.items()}

    @staticmethod
    def _new(told: pb.Tensor) -> np.ndarray:
        shape = tuple(told.shape)
        if not _DTYPE.fullmatch(told.dtype) or any(n < 0 for n in shape) or math.prod(shape) > _LARGEST:
            raise FormatError(f"{told.name}: dtype {told.dtype!r} and shape {list(shape)} are no array")
        return np.empty(shape, np.dtype(told.dtype))


def _tensors(name: str, array: np.ndarray, most: int) -> Iterator[pb.Tensor]:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    flat = little.reshape(-1).view(np.uint8)
    for offset in range(0, max(1, len(flat)), most):
        yield pb.Tensor(
            name=name,
            dtype=little.dtype.str,
            shape=array.shape,
            offset=offset,
            data=flat[offset : offset + most].tobytes(),
        )


def _token(token: Token) -> pb.Token:
    return pb.Token(
        text=token.text,
        logprob=token.logprob,
        id=token.id,
        alternatives=[pb.Alternative(text=a.text, logprob=a.logprob, id=a.id) for a in token.alternatives],
        reads=[_read(one) for one in token.reads],
    )


def _read_token(told: pb.Token) -> Token:
    return Token(
        told.text,
        told.logprob if told.HasField("logprob") else None,
        told.id if told.HasField("id") else None,
        tuple(Alternative(a.text, a.logprob, a.id if a.HasField("id") else None) for a in told.alternatives),
        tuple(_read_read(one) for one in told.reads),
    )


def _read(read: Read) -> pb.Read:
    return pb.Read(layer=read.layer, slot=read.slot, influence=read.influence, overlay=read.overlay)


def _read_read(told: pb.Read) -> Read:
    return Read(told.layer, told.slot, told.influence, told.overlay if told.HasField("overlay") else None)


def _usage(usage: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


def _read_usage(told: pb.Usage) -> Usage:
    return Usage(told.prompt_tokens, told.completion_tokens, told.cached_tokens, told.reasoning_tokens)


def _hash(told: Any) -> str | None:
    return told.content_hash if told.HasField("content_hash") else None
