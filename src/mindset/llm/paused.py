"""A dialog with tools that waits for somebody's word: all that is needed to go on from it, as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mindset.calls.call import NewNode
from mindset.calls.canonical import Json
from mindset.errors import FormatError
from mindset.llm.messages import Message, ToolCall, ToolResult, from_nodes, to_nodes
from mindset.llm.request import Options, options_from

__all__ = ["Paused"]

VERSION = 1


@dataclass(frozen=True)
class Paused:
    """Where a dialog with tools stands."""

    messages: tuple[Message, ...]
    """The dialog so far; the last one holds the wishes that wait."""
    options: Options
    max_rounds: int
    rounds: int
    """How often the model was asked."""
    parent: int | None = None
    """Call whose wishes these are."""
    waiting: tuple[ToolCall, ...] = ()
    """Wishes that nobody has said yes or no to."""
    results: tuple[ToolResult, ...] = ()
    """Of wishes beside them that have run."""

    def to_json(self) -> dict[str, Json]:
        """All of it as JSON."""
        return {
            "version": VERSION,
            "messages": [
                {"kind": node.kind, "content": dict(node.content)} for node in to_nodes(self.messages)
            ],
            "options": self.options.given(),
            "max_rounds": self.max_rounds,
            "rounds": self.rounds,
            "parent": self.parent,
            "waiting": [asdict(call) for call in self.waiting],
            "results": [asdict(result) for result in self.results],
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Json]) -> Paused:
        """What `to_json` wrote."""
        if told.get("version") != VERSION:
            raise FormatError(
                f"a paused dialog of version {told.get('version')!r}; this release reads {VERSION}"
            )
        try:
            return cls(
                from_nodes([NewNode(node["kind"], node["content"]) for node in told["messages"]]),
                options_from(told["options"]),
                int(told["max_rounds"]),
                int(told["rounds"]),
                told["parent"],
                tuple(ToolCall(**call) for call in told["waiting"]),
                tuple(ToolResult(**result) for result in told["results"]),
            )
        except (KeyError, TypeError) as error:
            raise FormatError(f"this is no paused dialog: {error}") from error
