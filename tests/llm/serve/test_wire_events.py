from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.calls.call import Usage
from mindset.errors import FormatError
from mindset.llm.events import Embeddings, Forward, Read, from_json, to_json

pytest.importorskip("grpc", reason="the extra `serve` is missing")
from mindset.llm.serve import llm_pb2 as pb
from mindset.llm.serve.wire_events import (
    CHUNK_BYTES,
    ForwardParts,
    embed_message,
    event_message,
    forward_parts,
    read_embeddings,
    read_event,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
ID = st.none() | st.integers(0, 2**40)


def some(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    """JSON of an event, with some of what need not be there."""
    return st.fixed_dictionaries(required, optional=optional)


ALTERNATIVE = some({"text": TEXT, "logprob": NUMBER, "id": ID})
READ = some(
    {
        "layer": st.integers(0, 99),
        "slot": st.integers(0, 2**40),
        "influence": NUMBER,
        "overlay": st.none() | TEXT,
    }
)
TOKEN = some(
    {"text": TEXT, "logprob": st.none() | NUMBER, "id": ID},
    alternatives=st.lists(ALTERNATIVE, max_size=2),
    reads=st.lists(READ, max_size=2),
)
COUNT = st.integers(1, 2**40)
EVENTS = st.one_of(
    some({"event": st.just("started"), "model": TEXT}, content_hash=TEXT),
    some({"event": st.just("text"), "text": TEXT}, tokens=st.lists(TOKEN, min_size=1, max_size=2)),
    some({"event": st.just("reasoning"), "text": TEXT}, signature=TEXT),
    some({"event": st.just("tool_call"), "index": st.integers(0, 99)}, id=TEXT, name=TEXT, arguments=TEXT),
    some({"event": st.just("retried"), "reason": TEXT, "wait": NUMBER}),
    some(
        {
            "event": st.just("finished"),
            "reason": st.sampled_from(["stop", "length", "tool_calls", "cancelled", "error"]),
        },
        usage=some(
            {}, prompt_tokens=COUNT, completion_tokens=COUNT, cached_tokens=COUNT, reasoning_tokens=COUNT
        ),
    ),
)


@settings(max_examples=150, deadline=None)
@given(told=EVENTS)
def test_events_come_back_as_they_were(told: dict[str, Any]) -> None:
    event = from_json(told)
    sent = event_message(event).SerializeToString()
    back = read_event(pb.Event.FromString(sent))
    assert back == event
    assert to_json(back) == to_json(event)


def test_an_event_of_another_release_is_refused() -> None:
    for event in (pb.Event(), pb.Event(finished=pb.Finished(reason="bored"))):
        with pytest.raises(FormatError, match="use one release"):
            read_event(event)


@pytest.mark.parametrize("rows", [1, 5000])
def test_a_pass_comes_back_to_the_bit(rows: int) -> None:
    rng = np.random.default_rng(0)
    found = Forward(
        tuple(range(rows)),
        rng.standard_normal((rows, 300)).astype(np.float32),
        rng.standard_normal((3, rows, 7)).astype(">f4").astype(np.float32),
        None,
        ((Read(1, 2, 0.5, "facts"), Read(1, 3, math.pi)), ()),
        "tiny",
        None,
        Usage(rows),
    )
    parts = [pb.ForwardPart.FromString(part.SerializeToString()) for part in forward_parts(found)]
    assert max(part.ByteSize() for part in parts) < CHUNK_BYTES + 1000
    assert (len(parts) > 3) is (rows == 5000)
    back = joined(parts[0], *reversed(parts[1:]))
    np.testing.assert_array_equal(back.logits, found.logits)
    np.testing.assert_array_equal(back.hidden_states, found.hidden_states)
    assert back.attention is None
    assert (back.ids, back.reads, back.model, back.content_hash, back.usage) == (
        found.ids, found.reads, found.model, found.content_hash, found.usage,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (3, 4)])
def test_vectors_come_back_to_the_bit(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    back = read_embeddings(embed_message(Embeddings(vectors, Usage(3), "tiny")))
    np.testing.assert_array_equal(back.vectors, vectors)
    assert (back.vectors.dtype, back.usage, back.model) == (np.float32, Usage(3), "tiny")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "O"}, "are no array"),
        ({"dtype": "<f3"}, "are no array"),
        ({"shape": [-1, 2]}, "are no array"),
        ({"shape": [2**30, 2**30]}, "are no array"),
        ({"offset": 4}, "outside of its shape"),
        ({"offset": -4}, "outside of its shape"),
        ({"data": b"x" * 9}, "outside of its shape"),
        ({"data": b"x" * 4}, "4 bytes came of 8"),
    ],
    ids=str,
)
def test_arrays_that_are_none(change: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {"name": "logits", "dtype": "<f4", "shape": [1, 2], "offset": 0, "data": b"x" * 8}
    with pytest.raises(FormatError, match=words):
        joined(pb.ForwardPart(tensors=[pb.Tensor(**(good | change))]))


def joined(*parts: pb.ForwardPart) -> Forward:
    whole = ForwardParts()
    for part in parts:
        whole.add(part)
    return whole.whole()


def test_a_pass_without_a_beginning() -> None:
    with pytest.raises(FormatError, match="first part"):
        ForwardParts().whole()
