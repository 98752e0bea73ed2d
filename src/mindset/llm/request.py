"""What a client is asked: a dialog or a raw prompt, how to go on with it, and which tools there are.

Immutable, and checked when made. What is None was not given: the model's own default holds, and the log shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mindset.calls.call import NewNode
from mindset.calls.canonical import Json
from mindset.errors import UsageError
from mindset.llm.messages import Message, to_nodes

__all__ = ["ForwardRequest", "Options", "Request", "ToolSpec", "options_from"]


@dataclass(frozen=True)
class ToolSpec:
    """A tool as a model is told of it."""

    name: str
    description: str
    parameters: Mapping[str, Json]
    """JSON schema of an object."""


@dataclass(frozen=True)
class Options:
    """How to go on."""

    max_tokens: int | None = None
    """Tokens of the answer at most."""
    temperature: float | None = None
    """0 takes the likeliest token."""
    top_p: float | None = None
    """Draw from the likeliest tokens that hold this share of the probability."""
    top_k: int | None = None
    """Draw from this many of the likeliest tokens."""
    seed: int | None = None
    """Names the randomness; None: a new one each time."""
    stop: tuple[str, ...] = ()
    """Text before which the answer ends; it is left out."""
    logprobs: int | None = None
    """Log-probabilities of the tokens, and of this many alternatives at each; None: none."""
    schema: Mapping[str, Json] | None = None
    """JSON schema that the answer must fit."""
    regex: str | None = None
    """Expression that the whole answer must match."""
    reads: int | None = None
    """For a memory: this many of the slots that spoke most for each token; None: none."""
    extra: Mapping[str, Json] = field(default_factory=dict)
    """Passed on as it is, to endpoints that know more."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, low in (("max_tokens", 1), ("temperature", 0), ("top_k", 1), ("logprobs", 0), ("reads", 1)):
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise UsageError(f"{name}={value} cannot be: give {low} or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p={self.top_p} is no share: give more than 0, at most 1")
        if self.schema is not None and self.regex is not None:
            raise UsageError("an answer fits a schema or a regex, not both")
        if "" in self.stop:
            raise UsageError("a stop must be text; '' would end every answer before it began")

    def given(self) -> dict[str, Any]:
        """What was given, as JSON."""
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        told["stop"] = list(self.stop) or None
        told["extra"] = dict(self.extra) or None
        told["schema"] = None if self.schema is None else dict(self.schema)
        return {name: value for name, value in told.items() if value is not None}


def options_from(given: Mapping[str, Any]) -> Options:
    """Options by their names; one stop may be text alone."""
    known = [f.name for f in fields(Options)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UsageError(f"there is no option {', '.join(unknown)}; there are {', '.join(known)}")
    stop = given.get("stop") or ()
    return Options(**{**given, "stop": (stop,) if isinstance(stop, str) else tuple(stop)})


@dataclass(frozen=True)
class Request:
    """A dialog to answer, or a prompt to continue; exactly one of the two."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    """Raw text, with no chat template."""
    options: Options = Options()
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str | None = None
    """auto, none, required, or the name of a tool; None leaves it to the endpoint."""

    def __post_init__(self) -> None:
        """Refuse two things to answer, or none."""
        if bool(self.messages) == (self.prompt is not None):
            raise UsageError("a request has messages or a prompt: give one of them")

    def nodes(self) -> tuple[NewNode, ...]:
        """What is asked, as nodes of the dialog tree."""
        if self.prompt is not None:
            return (NewNode("prompt", {"text": self.prompt}),)
        return to_nodes(self.messages)

    def given(self) -> dict[str, Json]:
        """What is asked for beside the dialog, as JSON."""
        told = self.options.given()
        if self.tools:
            told["tools"] = [
                {"name": t.name, "description": t.description, "parameters": dict(t.parameters)}
                for t in self.tools
            ]
        if self.tool_choice is not None:
            told["tool_choice"] = self.tool_choice
        return told


@dataclass(frozen=True)
class ForwardRequest:
    """One pass over a text, and what of its insides is wanted."""

    prompt: str | None = None
    ids: tuple[int, ...] | None = None
    """Tokens in place of text; exactly one of the two."""
    logits: bool = True
    hidden_states: bool = False
    """After the embedding and after every layer."""
    attention: bool = False
    reads: int | None = None
    """For a memory: how many slots of each bank, those that spoke most."""
    last: bool = False
    """The last position only."""

    def __post_init__(self) -> None:
        """Refuse two texts, or none."""
        if (self.prompt is None) == (self.ids is None):
            raise UsageError("a pass is over a prompt or over ids: give one of them")
