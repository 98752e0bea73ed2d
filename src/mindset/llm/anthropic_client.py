"""A client for Anthropic's messages API.

    AnthropicClient("anthropic:claude-sonnet-5")            ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL

The key is sent to Anthropic and to ANTHROPIC_BASE_URL; a stored key to the host it is stored for.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import ClassVar

from mindset.calls.log import CallLog
from mindset.errors import CallError, UsageError
from mindset.llm.answer_reader import read_answer
from mindset.llm.anthropic_messages import MessageEvents, message_body
from mindset.llm.budget import Budget
from mindset.llm.capabilities import Capabilities
from mindset.llm.client import Client
from mindset.llm.connection import Connection, checked_url, host_of
from mindset.llm.events import Event
from mindset.llm.keys import stored_key
from mindset.llm.policy import Policy
from mindset.llm.request import Request

__all__ = ["AnthropicClient"]

OFFICIAL = "https://api.anthropic.com"
VERSION = "2023-06-01"


class AnthropicClient(Client):
    """One of Anthropic's models."""

    kind: ClassVar[str] = "anthropic"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key: str | None = None,
        stream: bool = True,
        headers: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        log: CallLog | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`model`: `anthropic:NAME`, or a name. `stream` False: answers come in one piece."""
        self.name = model.removeprefix("anthropic:")
        super().__init__(f"anthropic:{self.name}", policy=policy, log=log, budget=budget)
        if not self.name:
            raise UsageError(f"{model!r} names no model: give anthropic:NAME")
        own = os.environ.get("ANTHROPIC_BASE_URL")
        self.base_url = checked_url(base_url or own or OFFICIAL)
        self._streams, self._extra_headers = stream, dict(headers or {})
        official = host_of(self.base_url) == host_of(OFFICIAL)
        variable = os.environ.get("ANTHROPIC_API_KEY") if official or base_url is None else None
        names = (host_of(self.base_url), *(["anthropic"] if official else []))
        self._key = key or variable or stored_key(*names)
        self._key_needed = official
        self._secrets.update([self._key] if self._key else [])
        self._connection: Connection | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What this API can do."""
        return Capabilities(chat=True, stream=True, tools=True, schema=True, images=True)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return self.base_url

    async def _prepare(self) -> None:
        self._connected()

    async def _stream(self, request: Request) -> AsyncIterator[Event]:
        connection = self._connected()
        body = message_body(request, self.name, stream=self._streams)
        source = connection.events("/v1/messages", body)
        async for event in read_answer(source, MessageEvents(self.name), connection.url.host):
            yield event

    async def _close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            if self._key is None and self._key_needed:
                raise CallError(
                    "Anthropic wants a key: set ANTHROPIC_API_KEY, or run `mindset config set-key anthropic`"
                )
            key = {} if self._key is None else {"x-api-key": self._key}
            headers = {"anthropic-version": VERSION, "user-agent": "mindset", **key, **self._extra_headers}
            self._connection = Connection(self.base_url, headers)
        return self._connection
