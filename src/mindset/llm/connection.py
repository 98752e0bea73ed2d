"""HTTP to one endpoint: JSON out, JSON or server-sent events back, and every way to fail as one `CallError`.

Does not know what is said. One pool of connections an event loop; a time limit only on connecting, the caller has its
own. Redirects are not followed, so that a key goes only where it was meant to.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2

from mindset.calls.canonical import Json
from mindset.errors import CallError, UsageError
from mindset.llm.http_failures import failure, unreachable
from mindset.llm.sse import ServerEvent, SseParser

__all__ = ["Connection", "checked_url", "host_of", "is_local"]

CONNECT_SECONDS = 20.0
JSON_TYPE, EVENTS_TYPE = "application/json", "text/event-stream"


class Connection:
    """The way to one endpoint."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        """`base_url` is what paths are added to; `headers` go with every request."""
        self.base_url = base_url.rstrip("/")
        self.url = httpx2.URL(self.base_url)
        self._headers = dict(headers)
        self._http: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def post(self, path: str, body: Mapping[str, Json]) -> Any:
        """The JSON that a request is answered with."""
        async with self._reply(path, body, JSON_TYPE) as reply:
            return _parsed(await reply.aread(), self.url.host)

    async def post_bytes(self, path: str, body: Mapping[str, Json], accept: str) -> bytes:
        """The bytes that a request is answered with."""
        async with self._reply(path, body, accept) as reply:
            return await reply.aread()

    async def events(self, path: str, body: Mapping[str, Json]) -> AsyncIterator[ServerEvent]:
        """The events that a request is answered with; a reply that is no stream counts as one event, `whole`."""
        async with self._reply(path, body, EVENTS_TYPE) as reply:
            kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == JSON_TYPE:
                yield ServerEvent((await reply.aread()).decode("utf-8", "replace"), "whole")
                return
            if kind != EVENTS_TYPE:
                raise CallError(
                    f"{self.url.host} answered with {kind or 'nothing that says what it is'}, not with events"
                )
            parser = SseParser()
            async with aclosing(reply.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    for event in parser.feed(chunk):
                        yield event
            for event in parser.end():
                yield event

    async def close(self) -> None:
        """Close what is open; it opens again when it is used."""
        http, self._http = self._http, None
        if http is not None and self._loop is asyncio.get_running_loop():
            await http.aclose()

    @asynccontextmanager
    async def _reply(
        self, path: str, body: Mapping[str, Json], accept: str
    ) -> AsyncIterator[httpx2.Response]:
        headers = {"accept": accept, "content-type": JSON_TYPE}
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        try:
            async with self._client().stream(
                "POST", self.base_url + path, content=content, headers=headers
            ) as reply:
                if not reply.is_success:
                    raise failure(reply.status_code, reply.headers, await reply.aread(), self.url.host)
                yield reply
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise unreachable(error, self.base_url) from error

    def _client(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._loop = loop
            self._http = httpx2.AsyncClient(
                headers=self._headers,
                timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32),
                trust_env=not is_local(self.url.host),
                verify=self.url.scheme == "https",
            )
        return self._http


def checked_url(url: str) -> str:
    """An address that paths can be added to."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise UsageError(f"{url!r} is no address: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"{url!r} is no address: it begins with http:// or https:// and names a host")
    if parsed.userinfo:
        raise UsageError(
            "an address with a name or a password in it would be logged: give the key apart, as key="
        )
    if parsed.query:
        raise UsageError(f"{url!r} has a query (?...), to which no path can be added")
    return url.rstrip("/")


def host_of(url: str) -> str:
    """The host of an address, with the port where it names one."""
    parsed = httpx2.URL(url)
    return parsed.host if parsed.port is None else f"{parsed.host}:{parsed.port}"


def is_local(host: str) -> bool:
    """Whether a host is this machine."""
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.") or host.endswith(".localhost")  # noqa: S104


def _parsed(content: bytes, host: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise CallError(f"{host} answered with what is no JSON: {error}", retry=True) from error
