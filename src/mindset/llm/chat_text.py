"""A dialog as one text, by the chat template that came with a model.

A template that knows no tools is given them in the system message, and calls and results as text; one that takes no
system message gets it with the first thing the user says. Needs a tokenizer of transformers; loads no torch itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mindset.errors import DataError, UnsupportedRequestError
from mindset.llm import tool_text
from mindset.llm.messages import Message, ToolCall, ToolResult, system
from mindset.llm.request import Request, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ChatText"]


class ChatText:
    """The chat template of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        template = tokenizer.chat_template
        self.known = template is not None
        """Whether there is one."""
        texts = template.values() if isinstance(template, dict) else [template or ""]
        self._knows_tools = any("tools" in str(text) for text in texts)
        self.calls_are_bare = self._knows_tools and not any("<tool_call>" in str(text) for text in texts)
        """Whether the model writes calls as JSON with nothing around them."""

    def ids(self, request: Request) -> list[int]:
        """The tokens that the answer to a request goes on from."""
        text = self.text(request.messages, () if request.tool_choice == "none" else request.tools)
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def text(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> str:
        """The dialog, and the beginning of the answer."""
        if not self.known:
            raise UnsupportedRequestError(
                "this model has no chat template, so it cannot answer messages; give it a prompt to continue"
            )
        own_words = not self._knows_tools
        if tools and own_words:
            messages = _with_instructions(messages, tool_text.instructions(tools))
        told = [one for message in messages for one in _told(message, own_words)]
        given = None if own_words or not tools else [_described(tool) for tool in tools]
        try:
            return self._rendered(told, given)
        except _template_errors() as error:
            if not told or told[0]["role"] != "system":
                raise _refusal(error) from error
        try:
            return self._rendered(_without_system(told), given)
        except _template_errors() as error:
            raise _refusal(error) from error

    def _rendered(self, told: list[dict[str, Any]], tools: list[Any] | None) -> str:
        text = self._tokenizer.apply_chat_template(
            told, tools=tools, add_generation_prompt=True, tokenize=False
        )
        return str(text)


def _template_errors() -> tuple[type[Exception], ...]:
    from jinja2.exceptions import TemplateError

    return TemplateError, TypeError, ValueError, KeyError


def _refusal(error: Exception) -> UnsupportedRequestError:
    return UnsupportedRequestError(f"the model's chat template does not take this dialog: {error}")


def _described(tool: ToolSpec) -> dict[str, Any]:
    return {"type": "function", "function": tool_text.described(tool)}


def _with_instructions(messages: Sequence[Message], told: str) -> list[Message]:
    first = messages[0]
    if first.role == "system":
        return [system(f"{first.text}\n\n{told}"), *messages[1:]]
    return [system(told), *messages]


def _told(message: Message, own_words: bool) -> list[dict[str, Any]]:
    """A message as templates take it; several results in one message become one each."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    calls = message.tool_calls
    if results and own_words:
        return [{"role": "user", "content": "\n".join(tool_text.result_text(one) for one in results)}]
    if results:
        return [
            {"role": "tool", "tool_call_id": one.call_id, "name": one.name, "content": one.content}
            for one in results
        ]
    if calls and own_words:
        words = [message.text] if message.text else []
        text = "\n".join([*words, *(tool_text.call_text(call) for call in calls)])
        return [{"role": message.role, "content": text}]
    told: dict[str, Any] = {"role": message.role, "content": message.text}
    if calls:
        told["tool_calls"] = [_called(call) for call in calls]
    return [told]


def _called(call: ToolCall) -> dict[str, Any]:
    try:
        arguments: Any = call.parsed()
    except DataError:  # as the model wrote it
        arguments = json.dumps(call.arguments)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _without_system(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The system message with the first thing the user says."""
    words, rest = told[0]["content"], [dict(one) for one in told[1:]]
    if rest and rest[0]["role"] == "user":
        rest[0]["content"] = f"{words}\n\n{rest[0]['content']}"
        return rest
    return [{"role": "user", "content": words}, *rest]
