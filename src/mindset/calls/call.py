"""A call: one request to a language model through a client, as the log keeps it. The same row for every client.

`Asked` is known before the model is, `Outcome` when it is over, however it ended; `Piece` are the parts of an answer
as they came. Plain data: nothing here knows a database, a client or a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mindset.calls.canonical import Json, digest

__all__ = ["Asked", "NewNode", "Outcome", "Piece", "Retry", "Status", "Usage", "Verb"]

Verb = Literal["complete", "embed", "encode", "decode", "forward"]
Status = Literal["running", "ok", "failed", "cancelled", "refused"]
"""`refused`: by a budget or a switch of ours, before anything was sent."""


@dataclass(frozen=True)
class NewNode:
    """A node of the dialog tree to be: under the one before it in a list, the first one at the root."""

    kind: str
    """message, tool_call, tool_result; others add their own."""
    content: Mapping[str, Json]
    """A JSON object."""


@dataclass(frozen=True)
class Usage:
    """What was read and written."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's, those that needed no computing anew."""
    reasoning_tokens: int = 0
    """Of the answer's, those that were not shown."""


@dataclass(frozen=True)
class Asked:
    """What a call asks."""

    verb: Verb
    model: str
    """MODEL as it was given, in the grammar of the command line; with it a call can be made again."""
    client: str
    """Kind of client: openai, anthropic, local, grpc, script."""
    nodes: tuple[NewNode, ...] = ()
    """The dialog so far, from its root; a raw prompt is one node of kind `prompt`."""
    options: Mapping[str, Json] = field(default_factory=dict)
    """What was asked for beside it: limits, temperature, seed, stops, schema, tools; nothing that was not given."""
    parent: int | None = None
    """Id of the call whose tool calls this one answers."""

    @property
    def key(self) -> str:
        """The hash by which a recorded answer is found again: verb, model, dialog and options."""
        nodes = [[node.kind, dict(node.content)] for node in self.nodes]
        return digest([self.verb, self.model, nodes, dict(self.options)])


@dataclass(frozen=True)
class Piece:
    """A part of an answer, as it came."""

    at: float
    """Seconds since the call began."""
    event: Mapping[str, Json]
    """An event of the client as JSON: exactly what a replay hands out again."""


@dataclass(frozen=True)
class Retry:
    """An attempt that failed and was made again."""

    at: float
    """Seconds since the call began."""
    reason: str
    """The error in one sentence."""
    waited: float
    """Seconds until the next attempt."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    status: Status
    answer: tuple[NewNode, ...] = ()
    """What the model said, partial where it was cut; hangs below the dialog that was asked."""
    result: Json = None
    """What no dialog holds: tokens, shapes, a text decoded."""
    usage: Usage = Usage()
    finish_reason: str | None = None
    error: str | None = None
    """One sentence, where it failed or was refused."""
    answered_by: str | None = None
    """The model as it called itself."""
    content_hash: str | None = None
    """Hash of the model's files where it is ours to read."""
    seconds: float = 0.0
    """From being asked to the end, waiting included."""
    first_token: float | None = None
    """Seconds until the first piece of text."""
    local_seconds: float = 0.0
    """Seconds of computing here; remote calls have none."""
    retries: tuple[Retry, ...] = ()
    replayed_from: int | None = None
    """Id of the recorded call that answered in the model's place."""
    endpoint: str | None = None
    """Address that was asked, by which its prices are found; None: in this process, or MODEL says it."""
