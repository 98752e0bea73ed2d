"""One turn of a dialog: a question under way to its answer.

    async with dialog.say("Who?") as turn:
        async for event in turn: ...
    turn.answer

Left early, by `break`, a cancelled task or an error, the part of the answer that had come belongs to the dialog; where
nothing had come the dialog is as it was, and remembers the question. Does not know a terminal.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING

from mindset.errors import CallError, UnsupportedRequestError
from mindset.llm.context import fitting, weight
from mindset.llm.events import Answer, Event
from mindset.llm.messages import Message
from mindset.llm.request import Request
from mindset.llm.stream import Stream

if TYPE_CHECKING:
    from mindset.llm.dialog import Dialog

__all__ = ["Turn"]

_TOO_LONG = re.compile(r"context|too (long|many tokens)|maximum .*(length|tokens)", re.IGNORECASE)


class Turn:
    """A question, and the answer as it comes."""

    def __init__(self, dialog: Dialog, question: Message) -> None:
        self.question = question
        self.answer: Answer | None = None
        """As far as it has come, once the turn is over; None where nothing came."""
        self.left_out = 0
        """Exchanges that were not sent, since not all fitted."""
        self._dialog = dialog
        self._stream: Stream | None = None

    async def __aenter__(self) -> Turn:
        return self

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            self._settle()

    async def _events(self) -> AsyncIterator[Event]:
        dialog = self._dialog
        messages = (*dialog.messages, self.question)
        room = dialog.room()
        while True:
            sent, self.left_out = fitting(messages, room)
            self._stream = dialog.client.complete(Request(sent, options=dialog.options))
            try:
                async for event in self._stream:
                    yield event
            except (CallError, UnsupportedRequestError) as error:
                if self._stream.so_far().message.parts or not _TOO_LONG.search(str(error)):
                    raise
                room = sum(weight(message) for message in sent) * 2 // 3
                if len(fitting(messages, room)[0]) == len(sent):
                    raise
            else:
                dialog.learn(sent, self._stream.so_far())
                return

    def _settle(self) -> None:
        """Let the dialog have what came."""
        answer = self._stream.so_far() if self._stream is not None else None
        if answer is None or (answer.finish_reason in ("cancelled", "error") and not answer.message.parts):
            self._dialog.unanswered(self.question)
            return
        self.answer = answer
        self._dialog.advance((self.question, answer.message), answer)
