"""Calls as they come in: parts put together, the work done in a thread, the reply sent in parts, errors told.

Does not know what a call does. Changes wait for each other in one thread, looks share some; a caller that stalls or
goes away holds up nobody, and a change that was begun is finished. Invariant: every call ends, in a reply or in one
error.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from mindset.errors import BusyError, UsageError
from mindset.store.daemon import memory_pb2
from mindset.store.daemon.changing import Changing
from mindset.store.daemon.failures import as_status
from mindset.store.daemon.history import History
from mindset.store.daemon.looking import Looking
from mindset.store.memory import Memory

__all__ = ["Limits", "Servicer"]

_LOG = logging.getLogger(__name__)
_SERVICE = memory_pb2.DESCRIPTOR.services_by_name["Memory"]

Work = Callable[[Any], Any]
"""From a whole request to a reply, or to an iterator over its parts."""


@dataclass(frozen=True)
class Limits:
    """What a daemon grants its callers."""

    request_bytes: int = 512 << 20
    """The largest request, its parts together."""
    part_seconds: float = 60.0
    """How long it waits for the next part of a request."""
    threads: int = 8
    """Looks at the same time; others wait."""
    calls: int = 256
    """Calls at the same time; others are refused."""
    grace_seconds: float = 30.0
    """How long calls may go on once it is told to stop."""


class Servicer:
    """The methods that gRPC calls, by the names of `memory.proto`; each is a look or a change."""

    def __init__(self, memory: Memory, limits: Limits) -> None:
        self.limits = limits
        self._lookers = ThreadPoolExecutor(limits.threads, "look")
        self._writer = ThreadPoolExecutor(1, "change")
        desks = (
            (Looking(memory), self._lookers),
            (Changing(memory), self._writer),
            (History(memory), self._writer),
        )
        for method in _SERVICE.methods:
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
            work, pool = next((getattr(desk, name), pool) for desk, pool in desks if hasattr(desk, name))
            setattr(self, method.name, self._answer(method, work, pool))

    def close(self) -> None:
        """Wait for what is under way."""
        self._writer.shutdown(wait=True)
        self._lookers.shutdown(wait=True)

    def _answer(self, method: Any, work: Work, pool: Executor) -> Callable[..., Any]:
        kind = GetMessageClass(method.input_type)

        async def whole(request: Any) -> Any:
            return await self._whole(request, kind()) if method.client_streaming else request

        async def once(request: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                return await self._run(pool, work, await whole(request))
            except Exception as error:
                await _tell(context, method.name, error)

        async def parts(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                reply = await self._run(pool, work, await whole(request))
                while (part := await self._run(pool, _next, reply)) is not None:
                    yield part
            except Exception as error:
                await _tell(context, method.name, error)

        return parts if method.server_streaming else once

    async def _whole(self, parts: AsyncIterator[Any], request: Any) -> Any:
        """A request whose parts add up."""
        size, coming = 0, aiter(parts)
        while True:
            try:
                async with asyncio.timeout(self.limits.part_seconds):
                    part = await anext(coming)
            except StopAsyncIteration:
                return request
            except TimeoutError as error:
                raise BusyError(
                    f"the rest of the request did not come within {self.limits.part_seconds:g} s"
                ) from error
            size += part.ByteSize()
            if size > self.limits.request_bytes:
                raise UsageError(
                    f"a request of more than {self.limits.request_bytes >> 20} MiB; make it in several"
                )
            request.MergeFrom(part)

    @staticmethod
    async def _run(pool: Executor, work: Work, request: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, work, request)


def _next(parts: Iterator[Any]) -> Any:
    return next(parts, None)


async def _tell(context: grpc.aio.ServicerContext, method: str, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    code, sentence, metadata = as_status(error)
    if code is grpc.StatusCode.INTERNAL:
        _LOG.error("%s failed", method, exc_info=error)
    await context.abort(code, sentence, metadata)
