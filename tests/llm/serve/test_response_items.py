from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from mindset.llm.events import (
    Event,
    Finished,
    ReasoningPiece,
    Started,
    TextPiece,
    Token,
    ToolCallPiece,
    collect,
)
from mindset.llm.messages import Reasoning
from mindset.llm.serve.response_items import Items

PIECES = st.lists(st.tuples(st.integers(0, 4), st.text(max_size=4)), max_size=12)


def piece(kind: int, text: str) -> Event:
    if kind == 0:
        return TextPiece(text, (Token("a", -0.5),))
    return ReasoningPiece(text) if kind == 1 else ToolCallPiece(kind - 2, "c", "add", text)


@settings(max_examples=60, deadline=None)
@given(drawn=PIECES)
def test_the_items_say_what_the_events_add_up_to(drawn: list[tuple[int, str]]) -> None:
    pieces = [piece(*one) for one in drawn]
    items, open_items, done = Items(), set(), []
    told = [event for piece in pieces for event in items.add(piece)]
    for event in (*told, *items.end("completed")):
        json.dumps(event)
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(open_items) + len(done)
            open_items.add(event["output_index"])
        elif event["type"] == "response.output_item.done":
            open_items.remove(event["output_index"])
            done.append(event["item"])
        elif "output_index" in event:
            assert event["output_index"] in open_items
    assert open_items == set()
    answer = collect([Started("x"), *pieces, Finished("stop")])
    texts = [part["text"] for item in items.told if item["type"] == "message" for part in item["content"]]
    thoughts = [
        part["text"] for item in items.told if item["type"] == "reasoning" for part in item["content"]
    ]
    assert "".join(texts) == answer.text
    assert "".join(thoughts) == "".join(
        part.text for part in answer.message.parts if isinstance(part, Reasoning)
    )
    calls = sorted(item["arguments"] for item in items.told if item["type"] == "function_call")
    assert calls == sorted(call.arguments for call in answer.message.tool_calls)
    assert all(item["status"] == "completed" for item in items.told)
