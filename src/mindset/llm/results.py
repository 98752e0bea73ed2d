"""What a call returns beside a dialog, as JSON for the log, and back: vectors, tokens, a text, a pass.

Arrays stand there whole up to a size; of larger ones only the shape is kept, and a replay says so.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from mindset.calls.call import Usage
from mindset.calls.canonical import Json
from mindset.errors import DataError, NotRecordedError
from mindset.llm.events import Embeddings, Forward, Read

__all__ = ["result_from", "result_of"]

ARRAYS = ("logits", "hidden_states", "attention")


def result_of(found: object, kept: int) -> dict[str, Json]:
    """A result as JSON; arrays stand there if they have `kept` bytes at most together."""
    if isinstance(found, str):
        return {"text": found}
    if isinstance(found, Embeddings):
        vectors = _array(found.vectors, found.vectors.nbytes <= kept)
        return {"vectors": vectors, "model": found.model, "usage": asdict(found.usage)}
    if isinstance(found, Forward):
        arrays = {name: getattr(found, name) for name in ARRAYS if getattr(found, name) is not None}
        whole = sum(array.nbytes for array in arrays.values()) <= kept
        return {
            "ids": list(found.ids),
            **{name: _array(array, whole) for name, array in arrays.items()},
            "reads": [[asdict(read) for read in position] for position in found.reads],
            "model": found.model,
            "content_hash": found.content_hash,
            "usage": asdict(found.usage),
        }
    if isinstance(found, tuple):
        return {"ids": list(found)}
    raise DataError(f"a client returned {type(found).__name__}, which is no result of a call")


def result_from(verb: str, told: Mapping[str, Json]) -> Any:
    """The result that `result_of` wrote for a call of this verb."""
    if verb == "decode":
        return told["text"]
    if verb == "encode":
        return tuple(told["ids"])
    if verb == "embed":
        return Embeddings(_restored("vectors", told), Usage(**told["usage"]), told["model"])
    if verb == "forward":
        arrays = {name: _restored(name, told) for name in ARRAYS if name in told}
        return Forward(
            tuple(told["ids"]),
            **arrays,
            reads=tuple(tuple(Read(**read) for read in position) for position in told["reads"]),
            model=told["model"],
            content_hash=told["content_hash"],
            usage=Usage(**told["usage"]),
        )
    raise DataError(f"a call of verb {verb!r} has no result of its own")


def _array(array: np.ndarray, whole: bool) -> dict[str, Json]:
    told: dict[str, Json] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if whole:
        told["base64"] = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return told


def _restored(name: str, told: Mapping[str, Json]) -> np.ndarray:
    array = told[name]
    if "base64" not in array:
        raise NotRecordedError(
            f"the {name} of this call, {array['shape']} of {array['dtype']}, were too large to be recorded: "
            "raise kept_arrays of the client's policy, and record again"
        )
    flat = np.frombuffer(base64.b64decode(array["base64"]), dtype=array["dtype"])
    return flat.reshape(array["shape"]).copy()
