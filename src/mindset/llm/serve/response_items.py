"""What an answer is made of in OpenAI's responses: items, written down as the events come.

Each event of a model becomes the events of the stream that it means; the items that they leave behind are the whole
reply. So a stream and a reply at once cannot differ. Knows no request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mindset.calls.canonical import Json
from mindset.llm.events import Event, ReasoningPiece, TextPiece, ToolCallPiece
from mindset.llm.serve.answering import new_id, tokens_told

__all__ = ["Items"]


@dataclass
class _Item:
    """An item that is being written."""

    place: int
    told: dict[str, Json]
    tokens: list[Json] = field(default_factory=list)

    @property
    def at(self) -> dict[str, Json]:
        """Where its events belong."""
        return {"item_id": self.told["id"], "output_index": self.place}


class Items:
    """The items of one answer."""

    def __init__(self) -> None:
        self._all: list[_Item] = []
        self._spoken: _Item | None = None
        """The text or the reasoning that is being written."""
        self._calls: dict[int, _Item] = {}

    @property
    def told(self) -> list[Json]:
        """All of them, as far as they are written."""
        return [item.told for item in self._all]

    def add(self, event: Event) -> Iterator[dict[str, Json]]:
        """The stream's events for one of the model's."""
        if isinstance(event, TextPiece):
            yield from self._speak("message", event.text, tokens_told(event.tokens))
        elif isinstance(event, ReasoningPiece):
            yield from self._speak("reasoning", event.text, [])
        elif isinstance(event, ToolCallPiece):
            yield from self._end_spoken("completed")
            yield from self._call(event)

    def end(self, status: str) -> Iterator[dict[str, Json]]:
        """The events that end all that is open."""
        yield from self._end_spoken(status)
        for item in self._calls.values():
            item.told["status"] = status
            yield {
                "type": "response.function_call_arguments.done",
                **item.at,
                "arguments": item.told["arguments"],
            }
            yield {"type": "response.output_item.done", "output_index": item.place, "item": item.told}
        self._calls = {}

    def _speak(self, kind: str, text: str, tokens: list[Json]) -> Iterator[dict[str, Json]]:
        if self._spoken is None or self._spoken.told["type"] != kind:
            yield from self._end_spoken("completed")
            yield from self._begin_spoken(kind)
        item = self._spoken
        if item is None:
            return
        item.told["content"][0]["text"] += text
        item.tokens += tokens
        word = "output_text" if kind == "message" else "reasoning_text"
        delta: dict[str, Json] = {
            "type": f"response.{word}.delta",
            **item.at,
            "content_index": 0,
            "delta": text,
        }
        yield delta | ({"logprobs": tokens} if kind == "message" else {})

    def _begin_spoken(self, kind: str) -> Iterator[dict[str, Json]]:
        if kind == "message":
            told: dict[str, Json] = {"id": new_id("msg_"), "type": kind, "role": "assistant"}
            part: dict[str, Json] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        else:
            told = {"id": new_id("rs_"), "type": kind, "summary": []}
            part = {"type": "reasoning_text", "text": ""}
        item = self._begin(told | {"status": "in_progress", "content": []})
        self._spoken = item
        yield _added(item)
        item.told["content"].append(part)
        yield {"type": "response.content_part.added", **item.at, "content_index": 0, "part": dict(part)}

    def _end_spoken(self, status: str) -> Iterator[dict[str, Json]]:
        item, self._spoken = self._spoken, None
        if item is None:
            return
        item.told["status"] = status
        part, place = item.told["content"][0], {**item.at, "content_index": 0}
        if item.told["type"] == "message":
            part["logprobs"] = item.tokens
            yield {
                "type": "response.output_text.done",
                **place,
                "text": part["text"],
                "logprobs": item.tokens,
            }
        else:
            yield {"type": "response.reasoning_text.done", **place, "text": part["text"]}
        yield {"type": "response.content_part.done", **place, "part": part}
        yield {"type": "response.output_item.done", "output_index": item.place, "item": item.told}

    def _call(self, piece: ToolCallPiece) -> Iterator[dict[str, Json]]:
        item = self._calls.get(piece.index)
        if item is None:
            told = {
                "id": new_id("fc_"),
                "type": "function_call",
                "call_id": piece.id or new_id("call_"),
                "name": piece.name,
                "arguments": "",
                "status": "in_progress",
            }
            item = self._calls[piece.index] = self._begin(told)
            yield _added(item)
        item.told["name"] = item.told["name"] or piece.name
        item.told["arguments"] += piece.arguments
        if piece.arguments:
            yield {"type": "response.function_call_arguments.delta", **item.at, "delta": piece.arguments}

    def _begin(self, told: dict[str, Json]) -> _Item:
        item = _Item(len(self._all), told)
        self._all.append(item)
        return item


def _added(item: _Item) -> dict[str, Json]:
    """The item as it is when it begins."""
    told = {name: list(value) if isinstance(value, list) else value for name, value in item.told.items()}
    return {"type": "response.output_item.added", "output_index": item.place, "item": told}
