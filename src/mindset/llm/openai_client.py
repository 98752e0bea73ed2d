"""A client for OpenAI, and for every server that speaks as it does, ours among them.

    OpenAIClient("openai:gpt-5-mini")                       OPENAI_API_KEY, OPENAI_BASE_URL
    OpenAIClient("http://localhost:8080/v1#smollm2")        no key needed on this machine

Dialogs go to /chat/completions (or /responses, `api="responses"`), raw prompts to /completions; tokens and the inside
of a pass to /encode, /decode and /forward, where a server offers them, as ours does. Keys are sent only where they
belong: OPENAI_API_KEY to OpenAI and to OPENAI_BASE_URL, a stored key to the host it is stored for.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from mindset.calls.canonical import Json
from mindset.calls.log import CallLog
from mindset.errors import CallError, UnsupportedRequestError, UsageError
from mindset.llm.answer_reader import Reader, read_answer, understood
from mindset.llm.budget import Budget
from mindset.llm.capabilities import Capabilities
from mindset.llm.client import Client
from mindset.llm.connection import Connection, checked_url, host_of
from mindset.llm.events import Embeddings, Event, Forward
from mindset.llm.http_failures import StatusError
from mindset.llm.keys import stored_key
from mindset.llm.openai_body import chat_body, completion_body
from mindset.llm.openai_chunks import Chunks
from mindset.llm.openai_extensions import embeddings_in, forward_body, forward_in
from mindset.llm.openai_responses import ResponseEvents, response_body
from mindset.llm.policy import Policy
from mindset.llm.request import ForwardRequest, Request

__all__ = ["OpenAIClient"]

OFFICIAL = "https://api.openai.com/v1"
Api = Literal["chat", "responses"]


class OpenAIClient(Client):
    """One model of an OpenAI-compatible endpoint."""

    kind: ClassVar[str] = "openai"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key: str | None = None,
        api: Api = "chat",
        stream: bool = True,
        headers: Mapping[str, str] | None = None,
        capabilities: Capabilities | None = None,
        policy: Policy | None = None,
        log: CallLog | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`model`: `openai:NAME`, `http(s)://HOST/v1#NAME`, or a name, with `base_url`.

        `stream` False: answers come in one piece; `headers` go with every request; `capabilities` None: what such an
        endpoint can do as a rule.
        """
        self.name, self.base_url = _address(model, base_url)
        full = f"openai:{self.name}" if base_url is None else f"{self.base_url}#{self.name}"
        super().__init__(model if "#" in model else full, policy=policy, log=log, budget=budget)
        self._api, self._streams = api, stream
        self._extra_headers = dict(headers or {})
        self._connection: Connection | None = None
        self._official = host_of(self.base_url) == host_of(OFFICIAL)
        self._can = capabilities or _usual(official=self._official, api=api, stream=stream)
        self._key = key or self._found_key()
        self._secrets.update([self._key] if self._key else [])

    @property
    def capabilities(self) -> Capabilities:
        """As given, or as usual; that a server cannot do something shows when it is asked."""
        return self._can

    @property
    def endpoint(self) -> str:
        """Its address."""
        return self.base_url

    async def _prepare(self) -> None:
        self._connected()

    async def _stream(self, request: Request) -> AsyncIterator[Event]:
        connection = self._connected()
        reader: Reader = Chunks(self.name)
        if request.prompt is not None:
            path, body = "/completions", completion_body(request, self.name, stream=self._streams)
        elif self._api == "responses":
            path, body = "/responses", response_body(request, self.name, stream=self._streams)
            reader = ResponseEvents(self.name)
        else:
            path = "/chat/completions"
            body = chat_body(request, self.name, stream=self._streams, official=self._official)
        async for event in read_answer(connection.events(path, body), reader, connection.url.host):
            yield event

    async def _embed(self, texts: Sequence[str]) -> Embeddings:
        body = {"model": self.name, "input": list(texts), "encoding_format": "float"}
        told = await self._connected().post("/embeddings", body)
        return understood(lambda: embeddings_in(told, len(texts), self.name), self.base_url)

    async def _encode(self, text: str) -> tuple[int, ...]:
        told = await self._extension("/encode", {"model": self.name, "text": text})
        return understood(lambda: tuple(int(number) for number in told["ids"]), self.base_url)

    async def _decode(self, ids: Sequence[int]) -> str:
        told = await self._extension("/decode", {"model": self.name, "ids": list(ids)})
        return understood(lambda: str(told["text"]), self.base_url)

    async def _forward(self, request: ForwardRequest) -> Forward:
        told = await self._extension("/forward", forward_body(request, self.name))
        return understood(lambda: forward_in(told), self.base_url)

    async def _close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _extension(self, path: str, body: Mapping[str, Json]) -> Any:
        """What only some servers offer."""
        connection = self._connected()
        try:
            return await connection.post(path, body)
        except StatusError as error:
            if error.status in (404, 405, 501) and error.code != "model_not_found":
                raise UnsupportedRequestError(
                    f"{self.base_url} offers no {path}, which is an extension of mindset's own server"
                ) from error
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            if self._key is None and self._official:
                raise CallError(
                    "OpenAI wants a key: set OPENAI_API_KEY, or run `mindset config set-key openai`"
                )
            given = {} if self._key is None else {"authorization": f"Bearer {self._key}"}
            headers = {"user-agent": "mindset", **given, **self._extra_headers}
            self._connection = Connection(self.base_url, headers)
        return self._connection

    def _found_key(self) -> str | None:
        own = os.environ.get("OPENAI_BASE_URL") or OFFICIAL
        belongs = self._official or self.base_url == own.rstrip("/")
        variable = os.environ.get("OPENAI_API_KEY") if belongs else None
        return variable or stored_key(host_of(self.base_url), *(["openai"] if self._official else []))


def _address(model: str, base_url: str | None) -> tuple[str, str]:
    """The name of a model at its endpoint, and the endpoint."""
    if model.startswith(("http://", "https://")):
        url, _, name = model.partition("#")
        if base_url is not None:
            raise UsageError(f"{model} and base_url={base_url} both say where: give one of them")
    else:
        name = model.removeprefix("openai:")
        url = base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL
    if not name:
        raise UsageError(f"{model!r} names no model: give openai:NAME or http://HOST/v1#NAME")
    return name, checked_url(url)


def _usual(*, official: bool, api: Api, stream: bool) -> Capabilities:
    """What endpoints of this kind can do; that one of them cannot shows when it is asked."""
    usual = Capabilities(
        chat=True,
        prompt=True,
        stream=stream,
        tools=True,
        schema=True,
        images=True,
        logprobs=True,
        seed=api == "chat",
        embed=True,
    )
    return usual if official else replace(usual, regex=True, reads=True, tokens=True, forward=True)
