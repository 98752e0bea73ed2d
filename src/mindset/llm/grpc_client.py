"""A model that another process serves over gRPC: grpc://HOST:PORT, or unix:PATH; llm.proto says what is asked.

The same events come out as went in there. What the model can do is asked once, before the first call. Where the
server wants a token it is the key that is given, or the one that is stored for the host, or, on this machine,
MINDSET_TOKEN.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import grpc

from mindset.calls.log import CallLog
from mindset.errors import FormatError, UsageError
from mindset.llm.budget import Budget
from mindset.llm.capabilities import Capabilities
from mindset.llm.client import Client
from mindset.llm.events import Embeddings, Event, Forward
from mindset.llm.keys import stored_key
from mindset.llm.policy import Policy
from mindset.llm.request import ForwardRequest, Request
from mindset.llm.serve import llm_pb2 as pb
from mindset.llm.serve import llm_pb2_grpc
from mindset.llm.serve.grpc_failures import as_error
from mindset.llm.serve.wire_events import ForwardParts, read_embeddings, read_event
from mindset.llm.serve.wire_requests import forward_message, request_message
from mindset.store.daemon.address import parse

__all__ = ["GrpcClient"]

PROTOCOL = 1
"""Of llm.proto; the server's must be the same."""
TOKEN_VARIABLE = "MINDSET_TOKEN"
_ABOUT_SECONDS = 30.0
_MESSAGE_BYTES = 512 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # the client's policy tries again, and says so
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcClient(Client):
    """A model at an address."""

    kind: ClassVar[str] = "grpc"

    def __init__(
        self,
        model: str,
        *,
        key: str | None = None,
        policy: Policy | None = None,
        log: CallLog | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`model`: grpc://HOST:PORT or unix:PATH; `key`: the server's token."""
        super().__init__(model, policy=policy, log=log, budget=budget)
        self._address = parse(model)
        key = key or self._found_key()
        if key is not None and not (key.isascii() and key.isprintable()):
            raise UsageError("a token is printable ASCII")
        self._metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        self._secrets.update([] if key is None else [key])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: Any = None
        self._stub: Any = None
        self._capabilities = Capabilities()
        self._content: str | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What its server says it can do; nothing before it was asked."""
        return self._capabilities

    @property
    def endpoint(self) -> str:
        """The address."""
        return self._address.url

    async def _prepare(self) -> None:
        if self._channel is not None and self._loop is asyncio.get_running_loop():
            return
        await self._close()
        channel = grpc.aio.insecure_channel(self._address.target, options=_OPTIONS)
        stub = llm_pb2_grpc.LanguageModelStub(channel)  # type: ignore[no-untyped-call]  # generated
        try:
            about = await stub.About(pb.AboutRequest(), timeout=_ABOUT_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            await channel.close()
            raise as_error(error, self._address.url) from error
        except BaseException:
            await channel.close()
            raise
        if about.protocol != PROTOCOL:
            await channel.close()
            raise FormatError(
                f"{self.endpoint}: mindset {about.version} serves there with protocol {about.protocol}, this release "
                f"has {PROTOCOL}; use one release"
            )
        known = Capabilities.__dataclass_fields__
        self._capabilities = Capabilities(**{name: True for name in about.capabilities if name in known})
        self._content = about.content_hash if about.HasField("content_hash") else None
        self._loop, self._channel, self._stub = asyncio.get_running_loop(), channel, stub

    async def _stream(self, request: Request) -> AsyncIterator[Event]:
        call = self._stub.Complete(request_message(request), metadata=self._metadata)
        try:
            async for told in call:
                yield read_event(told)
        except grpc.RpcError as error:
            raise as_error(error, self.endpoint) from error
        finally:
            call.cancel()

    async def _embed(self, texts: Sequence[str]) -> Embeddings:
        return read_embeddings(await self._ask("Embed", pb.EmbedRequest(texts=texts)))

    async def _encode(self, text: str) -> tuple[int, ...]:
        return tuple((await self._ask("Encode", pb.EncodeRequest(text=text))).ids)

    async def _decode(self, ids: Sequence[int]) -> str:
        return str((await self._ask("Decode", pb.DecodeRequest(ids=ids))).text)

    async def _forward(self, request: ForwardRequest) -> Forward:
        parts = ForwardParts()
        call = self._stub.Forward(forward_message(request), metadata=self._metadata)
        try:
            async for part in call:
                parts.add(part)
        except grpc.RpcError as error:
            raise as_error(error, self.endpoint) from error
        finally:
            call.cancel()
        return parts.whole()

    async def _content_hash(self) -> str | None:
        return self._content

    async def _close(self) -> None:
        channel, loop = self._channel, self._loop
        self._channel = self._stub = self._loop = None
        if channel is not None and loop is asyncio.get_running_loop():
            await channel.close()

    def _found_key(self) -> str | None:
        """Shown to nobody whom it is not meant for."""
        at = self._address
        stored = None if at.path is not None else stored_key(f"{at.host}:{at.port}", at.host)
        return stored or (os.environ.get(TOKEN_VARIABLE) or None if at.is_local else None)

    async def _ask(self, name: str, message: Any) -> Any:
        try:
            return await getattr(self._stub, name)(message, metadata=self._metadata)
        except grpc.RpcError as error:
            raise as_error(error, self.endpoint) from error
