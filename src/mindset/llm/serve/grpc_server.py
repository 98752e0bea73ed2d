"""The service of llm.proto over a desk, with health and reflection beside it, and the memory's where there is one.

Messages are parsed here and not by gRPC, so that bytes which are none are the caller's error. A caller who goes away,
or whose deadline passes, frees its place. Invariant: every call ends, in a reply or in one status.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mindset.errors import MindsetError, UsageError
from mindset.llm.serve import llm_pb2 as pb
from mindset.llm.serve.answering import events_of
from mindset.llm.serve.auth import Gate
from mindset.llm.serve.desk import Desk
from mindset.llm.serve.endpoint import Asked
from mindset.llm.serve.errors import RefusedError
from mindset.llm.serve.forward import check_size
from mindset.llm.serve.grpc_failures import as_status
from mindset.llm.serve.sse import GoneError
from mindset.llm.serve.wire_events import embed_message, event_message, forward_parts
from mindset.llm.serve.wire_requests import read_forward_request, read_request, texts_of
from mindset.store.daemon import memory_pb2, memory_pb2_grpc
from mindset.store.daemon.answering import Servicer as MemoryServicer
from mindset.store.daemon.protocol import MESSAGE_BYTES, release

__all__ = ["PROTOCOL", "SERVICE", "GrpcServer"]

PROTOCOL = 1
"""Version of llm.proto; another one where a client of before would misunderstand."""
SERVICE: str = pb.DESCRIPTOR.services_by_name["LanguageModel"].full_name
_MEMORY: str = memory_pb2.DESCRIPTOR.services_by_name["Memory"].full_name
_HEALTH = "/grpc.health.v1.Health/"
_LOG = logging.getLogger(__name__)
Work = Callable[[Asked, Any], Awaitable[Any] | AsyncIterator[Any]]


class GrpcServer:
    """A gRPC server of one event loop; add its addresses, then start it."""

    def __init__(self, desk: Desk, gate: Gate, memory: MemoryServicer | None = None) -> None:
        """`memory`: what answers for the model's memory."""
        limits = desk.limits
        received = max(limits.body_bytes, MESSAGE_BYTES if memory else 0)
        self.inner = grpc.aio.server(
            interceptors=[_Guard(gate)],
            maximum_concurrent_rpcs=limits.connections,
            options=[
                ("grpc.max_receive_message_length", received),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # two servers at one port would share its calls
            ],
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.inner)
        answering = _Answering(desk, memory=memory is not None)
        self.inner.add_generic_rpc_handlers([answering.handler()])
        names = [SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        if memory is not None:
            memory_pb2_grpc.add_MemoryServicer_to_server(memory, self.inner)  # type: ignore[no-untyped-call]  # generated
            names.append(_MEMORY)
        reflection.enable_server_reflection(names, self.inner)
        self._names = names

    async def start(self) -> None:
        """Answer from now on."""
        await self.inner.start()
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Say that no more is taken."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, seconds: float) -> None:
        """End, after what is under way or after so many seconds."""
        await self.inner.stop(seconds)


class _Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # untyped
    """Asks for the token; health is told to everybody."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Let a call through, or refuse it."""
        if details.method.startswith(_HEALTH):
            return await continuation(details)
        shown = [value for key, value in details.invocation_metadata or () if key == "authorization"]
        try:
            self._gate.check_token(str(shown[0]) if len(shown) == 1 else None)
        except RefusedError as error:
            return _refusing(error)
        return await continuation(details)


def _refusing(error: RefusedError) -> Any:
    code, sentence, metadata = as_status(error)

    async def refuse(_: Any, context: Any) -> None:
        await context.abort(code, sentence, metadata)

    return grpc.unary_unary_rpc_method_handler(refuse)


class _Answering:
    """The calls of llm.proto, by their names."""

    def __init__(self, desk: Desk, *, memory: bool) -> None:
        self._desk, self._memory = desk, memory

    def handler(self) -> Any:
        """All of them, as gRPC takes them."""
        work: dict[str, Work] = {
            "About": self._about,
            "Complete": _complete,
            "Embed": _embed,
            "Encode": _encode,
            "Decode": _decode,
            "Forward": _forward,
        }
        methods = {}
        for method in pb.DESCRIPTOR.services_by_name["LanguageModel"].methods:
            call = self._call(method, work[method.name])
            kind = (
                grpc.unary_stream_rpc_method_handler
                if method.server_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            methods[method.name] = kind(call, response_serializer=_serialized)
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _call(self, method: Any, work: Work) -> Callable[[bytes, Any], Awaitable[Any]]:
        kind, way = GetMessageClass(method.input_type), f"/{SERVICE}/{method.name}"

        async def call(data: bytes, context: Any) -> Any:
            begun, status = time.monotonic(), "OK"
            try:
                return await self._answer(kind, data, way, work, context)
            except asyncio.CancelledError:
                status = "CANCELLED"
                self._desk.metrics.cancelled += 1
                raise
            except GoneError:
                status = "CANCELLED"
                self._desk.metrics.cancelled += 1
                await context.abort(grpc.StatusCode.CANCELLED, "the answer was left unread")
            except Exception as error:
                if not isinstance(error, MindsetError):
                    _LOG.error("%s failed", way, exc_info=error)
                code, sentence, metadata = as_status(error)
                status = code.name
                await context.abort(code, sentence, metadata)
            finally:
                self._desk.metrics.answered(way, status, time.monotonic() - begun)

        return call

    async def _answer(self, kind: Any, data: bytes, way: str, work: Work, context: Any) -> Any:
        asked = Asked(self._desk, _parsed(kind, data), way=way, seconds=_remaining(context))
        if work == self._about:
            return await self._about(asked, asked.body)
        self._desk.check_model(asked.body.model)
        async with self._desk.place():
            found = work(asked, asked.body)
            if isinstance(found, Awaitable):
                return await found
            async with aclosing(found) as parts:  # type: ignore[type-var]
                async for part in parts:
                    await self._send(context, part)
        return None

    async def _send(self, context: Any, part: Any) -> None:
        try:
            async with asyncio.timeout(self._desk.limits.send_seconds):
                await context.write(part)
        except TimeoutError as error:
            raise GoneError from error

    async def _about(self, asked: Asked, _: Any) -> Any:
        content_hash = await asked.desk.client.content_hash()
        can = asdict(asked.desk.client.capabilities)
        return pb.AboutReply(
            version=release(),
            protocol=PROTOCOL,
            models=asked.desk.names,
            capabilities=[name for name, able in can.items() if able],
            content_hash=content_hash,
            memory=self._memory,
        )


async def _complete(asked: Asked, told: Any) -> AsyncIterator[Any]:
    request = read_request(told, asked.desk.limits)
    async with aclosing(events_of(asked, request)) as events:  # type: ignore[type-var]
        async for event in events:
            yield event_message(event)


async def _embed(asked: Asked, told: Any) -> Any:
    found = await asked.desk.client.embed(texts_of(told.texts, asked.desk.limits), timeout=asked.timeout)
    asked.desk.metrics.used(found.usage)
    return embed_message(found)


async def _encode(asked: Asked, told: Any) -> Any:
    return pb.EncodeReply(ids=await asked.desk.client.encode(told.text, timeout=asked.timeout))


async def _decode(asked: Asked, told: Any) -> Any:
    asked.desk.check_count("tokens", len(told.ids), asked.desk.limits.ids)
    return pb.DecodeReply(text=await asked.desk.client.decode(tuple(told.ids), timeout=asked.timeout))


async def _forward(asked: Asked, told: Any) -> AsyncIterator[Any]:
    request = read_forward_request(told, asked.desk.limits)
    found = await asked.desk.client.forward(request, timeout=asked.timeout)
    asked.desk.metrics.used(found.usage)
    check_size(found, asked.desk.limits)
    for part in forward_parts(found):
        yield part


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise UsageError(f"the message is no {kind.DESCRIPTOR.name}: {error}") from error


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _remaining(context: Any) -> float | None:
    seconds = context.time_remaining()
    return None if seconds is None else max(0.001, float(seconds))
