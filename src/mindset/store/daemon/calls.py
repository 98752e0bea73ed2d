"""A client's calls to one daemon: each has a timeout, and each failure is one of mindset's errors.

Knows `memory.proto` and its channel, not what is done with a reply. A daemon that was started anew is found again by
the next call.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from mindset.store.daemon import memory_pb2_grpc
from mindset.store.daemon.address import parse
from mindset.store.daemon.failures import as_error
from mindset.store.daemon.protocol import MESSAGE_BYTES

__all__ = ["Calls"]

TOKEN_VARIABLE = "MINDSET_TOKEN"
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # a change is made once, or said to have failed
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class Calls:
    """An open channel; threads may share it."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        address = parse(url)
        self.url, self.timeout_seconds = address.url, timeout_seconds
        # A served model's memory may ask for the token; it is shown on this machine only.
        token = os.environ.get(TOKEN_VARIABLE) if address.is_local else None
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel = grpc.insecure_channel(address.target, _OPTIONS)
        self._stub = memory_pb2_grpc.MemoryStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    def close(self) -> None:
        """Let go of the channel."""
        self._channel.close()

    def ask(self, name: str, request: object, *, changes: bool = False, seconds: float = 0.0) -> Any:
        """A call with one reply; a request that may be large is given as an iterator over its parts.

        `seconds` is another timeout; 0: that of all calls.
        """
        try:
            return getattr(self._stub, name)(
                request, timeout=seconds or self.timeout_seconds, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise as_error(error, self.url, changes=changes) from error

    def parts(
        self, name: str, request: object | Iterable[object], *, changes: bool = False, seconds: float = 0.0
    ) -> Iterator[Any]:
        """The parts of a reply, as they come."""
        try:
            yield from getattr(self._stub, name)(
                request, timeout=seconds or self.timeout_seconds, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise as_error(error, self.url, changes=changes) from error
