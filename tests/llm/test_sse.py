from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.llm.sse import ServerEvent, SseParser


def parse(*chunks: bytes) -> list[ServerEvent]:
    parser = SseParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events + parser.end()


@pytest.mark.parametrize(
    ("sent", "events"),
    [
        (b"data: one\n\ndata: two\n\n", [ServerEvent("one"), ServerEvent("two")]),
        (b"data: one\r\n\r\ndata:two\r\n\r\n", [ServerEvent("one"), ServerEvent("two")]),
        (b"data: one\r\rdata: two\r\r", [ServerEvent("one"), ServerEvent("two")]),
        (b": a comment\n\n:\ndata: x\n\n", [ServerEvent("x")]),
        (b"event: error\ndata: a\ndata: b\n\n", [ServerEvent("a\nb", "error")]),
        (b"event: ping\n\ndata: after\n\n", [ServerEvent("after")]),
        (b"data\n\n", [ServerEvent("")]),
        (b"data:  two spaces\n\n", [ServerEvent(" two spaces")]),
        (b"id: 7\nretry: 3\nunknown: x\ndata: x\n\n", [ServerEvent("x")]),
        (b"data: forgotten end", [ServerEvent("forgotten end")]),
        (b"data: one\n", [ServerEvent("one")]),
        (b"\xef\xbb\xbfdata: behind a mark\n\n", [ServerEvent("behind a mark")]),
        ("data: naïve 😀\u2028line\n\n".encode(), [ServerEvent("naïve 😀\u2028line")]),
        (b"data: \xff\xfe\n\n", [ServerEvent("\ufffd\ufffd")]),
        (b"", []),
        (b"\n\n\r\n", []),
    ],
)
def test_events_are_read_as_the_standard_says(sent: bytes, events: list[ServerEvent]) -> None:
    assert parse(sent) == events
    assert parse(*(sent[at : at + 1] for at in range(len(sent)))) == events


LINES = st.sampled_from(
    [
        b"data: x",
        b"data:",
        b"data: \xf0\x9f\x98\x80",
        b"event: e",
        b":c",
        b"",
        b"",
        b"id: 1",
        b"\xef\xbb\xbf",
        b"\xc3",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=20).map(lambda parts: b"".join(a + b for a, b in parts))


@given(STREAMS | st.binary(max_size=60), st.lists(st.integers(0, 400), max_size=12))
def test_any_cut_of_the_bytes_gives_the_same_events(sent: bytes, places: list[int]) -> None:
    cuts = [0, *sorted(min(place, len(sent)) for place in places), len(sent)]
    chunks = [sent[a:b] for a, b in pairwise(cuts)]
    assert parse(*chunks) == parse(sent)


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"), max_size=20), min_size=1, max_size=5))
def test_what_was_written_is_read(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    sent = "".join(f"data: {text}\n\n" for text in texts).encode()
    assert [event.data for event in parse(sent)] == texts
