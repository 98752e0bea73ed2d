"""Somebody who asks a server in every way that there is, one request after the other, and leaves some answers early.

Every prompt has a word of its own, and every answer is looked at for it: what belongs to somebody else is found.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx2

from mindset.llm.serve import llm_pb2 as pb
from mindset.llm.serve import llm_pb2_grpc

__all__ = ["Asker", "Tally"]

PATIENCE = 120.0
"""Seconds after which an answer counts as one that never came."""
_STREAMS = ("chat", "completion", "responses", "grpc")
_WHOLE = ("chat at once", "responses at once", "encode", "grpc encode", "models")


@dataclass
class Tally:
    """What askers saw, together."""

    asked: Counter[str] = field(default_factory=Counter)
    """Requests sent, by kind."""
    whole: int = 0
    """Answers that came to their end."""
    left: int = 0
    """Answers that the asker left early."""
    refused: int = 0
    """Told to come again: all places were taken, or the server was stopping."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are not the asker's, or none at all, in sentences."""
    first: list[float] = field(default_factory=list)
    """Seconds until the first word."""


Judge = Callable[[str, str, str, bool], str | None]
"""What is wrong with an answer: of a kind, to a prompt, the text, and whether it is whole; None: nothing."""


class Asker:
    """One of many."""

    def __init__(
        self,
        urls: Mapping[str, str],
        number: int,
        tally: Tally,
        *,
        prompts: Callable[[int], str],
        judge: Judge,
        leaves: float = 0.5,
        max_tokens: int = 32,
    ) -> None:
        """`prompts`: the nth prompt; `leaves`: which share of its streams it leaves early."""
        self._urls, self._number, self._tally = urls, number, tally
        self._prompts, self._judge, self._leaves = prompts, judge, leaves
        self._max_tokens = max_tokens
        self._rng = random.Random(number)  # noqa: S311
        self._own = f"asker {number}"

    async def ask_until(self, end: float) -> None:
        """Ask until then."""
        uds = self._urls["socket"].removeprefix("unix:") if self._number % 4 == 3 else None
        base = "http://localhost" if uds else self._urls["http"].removesuffix("/v1")
        transport = httpx2.AsyncHTTPTransport(uds=uds) if uds else None
        async with (
            httpx2.AsyncClient(base_url=base, transport=transport, timeout=PATIENCE) as http,
            grpc.aio.insecure_channel(self._urls["grpc"].removeprefix("grpc://")) as channel,
        ):
            stub = llm_pb2_grpc.LanguageModelStub(channel)  # type: ignore[no-untyped-call]  # generated
            count = 0
            while time.monotonic() < end:
                count += 1
                kind = self._rng.choice(_STREAMS if self._rng.random() < 0.7 else _WHOLE)
                await self._once(kind, self._prompts(count), http, stub)

    async def _once(self, kind: str, prompt: str, http: httpx2.AsyncClient, stub: Any) -> None:
        self._tally.asked[kind] += 1
        leave_after = self._rng.randint(1, 4) if self._rng.random() < self._leaves else None
        try:
            async with asyncio.timeout(PATIENCE):
                if kind == "grpc":
                    await self._grpc(prompt, stub, leave_after)
                elif kind in _STREAMS:
                    await self._stream(kind, prompt, http, leave_after)
                else:
                    await self._whole(kind, prompt, http, stub)
        except grpc.RpcError as error:
            self._failed(
                kind, error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE), error
            )
        except (TimeoutError, httpx2.HTTPError, ValueError, KeyError) as error:
            self._failed(kind, False, error)

    async def _stream(
        self, kind: str, prompt: str, http: httpx2.AsyncClient, leave_after: int | None
    ) -> None:
        path, body = self._body(kind, prompt)
        begun, text, pieces, ended = time.monotonic(), "", 0, False
        async with http.stream("POST", path, json=body | {"stream": True}) as reply:
            if reply.status_code != 200:
                self._failed(kind, reply.status_code in (429, 503), await reply.aread())
                return
            async for line in reply.aiter_lines():
                word, last = _word(kind, line)
                ended = ended or last
                if not word:
                    continue
                if not pieces:
                    self._tally.first.append(time.monotonic() - begun)
                text, pieces = text + word, pieces + 1
                if pieces == leave_after:
                    self._tally.left += 1
                    self._check(kind, prompt, text, whole=False)
                    return
        if not ended:
            self._tally.wrong.append(f"{self._own}: {kind} ended in the middle, after {text!r}")
        self._tally.whole += 1
        self._check(kind, prompt, text, whole=True)

    async def _grpc(self, prompt: str, stub: Any, leave_after: int | None) -> None:
        options = pb.Options(max_tokens=self._max_tokens, temperature=0)
        call = stub.Complete(pb.CompleteRequest(prompt=prompt, options=options))
        text, pieces, ended = "", 0, False
        async for event in call:
            ended = event.HasField("finished")
            if not event.HasField("text"):
                continue
            text, pieces = text + event.text.text, pieces + 1
            if pieces == leave_after:
                call.cancel()
                self._tally.left += 1
                self._check("grpc", prompt, text, whole=False)
                return
        if not ended:
            self._tally.wrong.append(f"{self._own}: a gRPC answer without an end, after {text!r}")
        self._tally.whole += 1
        self._check("grpc", prompt, text, whole=True)

    async def _whole(self, kind: str, prompt: str, http: httpx2.AsyncClient, stub: Any) -> None:
        if kind == "grpc encode":
            ids = (await stub.Encode(pb.EncodeRequest(text=prompt))).ids
            self._tally.whole += 1
            self._check("tokens", prompt, str(list(ids)), whole=True)
            return
        path, body = self._body(kind.removesuffix(" at once"), prompt)
        reply = await (http.get(path) if body is None else http.post(path, json=body))
        if reply.status_code != 200:
            self._failed(kind, reply.status_code in (429, 503), reply.content)
            return
        self._tally.whole += 1
        told = reply.json()
        if kind == "chat at once":
            self._check(kind, prompt, told["choices"][0]["message"]["content"], whole=True)
        elif kind == "responses at once":
            self._check(kind, prompt, told["output"][0]["content"][0]["text"], whole=True)
        elif kind == "encode":
            self._check("tokens", prompt, str(told["ids"]), whole=True)

    def _body(self, kind: str, prompt: str) -> tuple[str, Any]:
        some: dict[str, Any] = {"temperature": 0}
        if kind == "chat":
            messages = [{"role": "user", "content": prompt}]
            return "/v1/chat/completions", some | {"messages": messages, "max_tokens": self._max_tokens}
        if kind == "completion":
            return "/v1/completions", some | {"prompt": prompt, "max_tokens": self._max_tokens}
        if kind == "responses":
            return "/v1/responses", some | {"input": prompt, "max_output_tokens": self._max_tokens}
        return ("/v1/encode", {"text": prompt}) if kind == "encode" else ("/v1/models", None)

    def _check(self, kind: str, prompt: str, text: str, *, whole: bool) -> None:
        wrong = self._judge(kind, prompt, text, whole)
        if wrong is not None:
            self._tally.wrong.append(f"{self._own}: {kind}: {wrong}"[:500])

    def _failed(self, kind: str, refused: bool, told: object) -> None:
        if refused:
            self._tally.refused += 1
        else:
            self._tally.wrong.append(f"{self._own}: {kind}: {told!r}"[:500])


def _word(kind: str, line: str) -> tuple[str, bool]:
    """The text of a line of a stream, and whether it is the last of it."""
    if not line.startswith("data: "):
        return "", False
    if line == "data: [DONE]":
        return "", True
    told = json.loads(line[6:])
    if kind == "responses":
        word = told["delta"] if told["type"] == "response.output_text.delta" else ""
        return word, told["type"] in ("response.completed", "response.incomplete")
    if not told["choices"]:
        return "", False
    choice = told["choices"][0]
    return (choice["text"] if kind == "completion" else choice["delta"].get("content") or ""), False
