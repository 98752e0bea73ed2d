"""What a model, and the way to it, can do; and whether that is enough for a request.

Plain data. Does not know how a client finds it out.
"""

from __future__ import annotations

from dataclasses import dataclass

from mindset.errors import UnsupportedRequestError
from mindset.llm.messages import Image
from mindset.llm.request import ForwardRequest, Request

__all__ = ["Capabilities", "need", "need_for", "need_for_forward"]


@dataclass(frozen=True)
class Capabilities:
    """True where it can be asked for."""

    chat: bool = False
    """Dialogs of messages."""
    prompt: bool = False
    """Raw text to be continued."""
    stream: bool = False
    """Answers come in pieces; without it, as one piece."""
    tools: bool = False
    schema: bool = False
    """Answers that must fit a JSON schema."""
    regex: bool = False
    """Answers that must match an expression."""
    images: bool = False
    logprobs: bool = False
    seed: bool = False
    """The same seed gives the same answer."""
    reads: bool = False
    """The slots of a memory that spoke for each token."""
    embed: bool = False
    tokens: bool = False
    """Text to tokens and back."""
    forward: bool = False
    """The inside of one pass: logits, hidden states, attention."""


_SAID = {
    "chat": "dialogs (messages)",
    "prompt": "raw prompts",
    "tools": "tools",
    "schema": "a JSON schema for its answer",
    "regex": "an expression for its answer",
    "images": "images",
    "logprobs": "log-probabilities",
    "seed": "a seed",
    "reads": "reads of a memory",
    "embed": "embeddings",
    "tokens": "text to tokens and back",
    "forward": "the inside of a pass (logits, hidden states, attention)",
}


def need(can: Capabilities, model: str, *wanted: str) -> None:
    """Refuse what is wanted and cannot be done."""
    missing = [_SAID[name] for name in wanted if not getattr(can, name)]
    if missing:
        able = [_SAID[name] for name in _SAID if getattr(can, name)]
        raise UnsupportedRequestError(
            f"{model} cannot be asked for {' and '.join(missing)}; it offers {', '.join(able) or 'nothing'}"
        )


def need_for(can: Capabilities, model: str, request: Request) -> None:
    """Refuse a request that asks for more than can be done."""
    options = request.options
    asked = {
        "chat": bool(request.messages),
        "prompt": request.prompt is not None,
        "tools": bool(request.tools),
        "schema": options.schema is not None,
        "regex": options.regex is not None,
        "images": any(isinstance(part, Image) for message in request.messages for part in message.parts),
        "logprobs": options.logprobs is not None,
        "seed": options.seed is not None,
        "reads": options.reads is not None,
    }
    need(can, model, *(name for name, wanted in asked.items() if wanted))


def need_for_forward(can: Capabilities, model: str, request: ForwardRequest) -> None:
    """Refuse a pass that asks for more than can be shown."""
    need(can, model, "forward", *(() if request.reads is None else ("reads",)))
