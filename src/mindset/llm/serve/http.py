"""The HTTP application: a served client behind OpenAI's paths and our own.

Every request goes through the gate, is read and checked, takes a place, is answered, and is told how it failed if it
did: always by one error object, never by a hanging connection. Does not know what an endpoint does.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindset.llm.client import Client
from mindset.llm.serve.auth import Gate
from mindset.llm.serve.body import checked, parsed, read
from mindset.llm.serve.desk import Desk
from mindset.llm.serve.endpoint import Asked, Endpoint
from mindset.llm.serve.errors import RefusedError, told
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.sse import Events, GoneError, Reply, event, json_reply, until_gone
from mindset.llm.serve.table import ENDPOINTS

__all__ = ["app", "application"]

_LOG = logging.getLogger(__name__)
_ALLOWED_HEADERS = "authorization, content-type, accept"
_FIXED = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


def app(client: Client, *, gate: Gate | None = None, limits: Limits | None = None) -> ASGIApp:
    """The application of a client, for any ASGI server."""
    return application(Desk(client, limits=limits), gate or Gate())


def application(desk: Desk, gate: Gate) -> ASGIApp:
    """The application of a desk that others may share."""
    routes = [Route(one.path, _Answering(one, desk, gate), methods=[one.method]) for one in ENDPOINTS]
    return _Outermost(Router(routes, redirect_slashes=False), desk, gate)


class _Outermost:
    """The gate, and what holds for every reply."""

    def __init__(self, inner: ASGIApp, desk: Desk, gate: Gate) -> None:
        self._inner, self._desk, self._gate = inner, desk, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            return
        scope["app"] = self  # so that the router raises what it does not find
        watched = _Watched(send, self._extra(scope))
        begun = time.monotonic()
        try:
            await self._answer(scope, receive, watched)
        except GoneError:
            self._desk.metrics.cancelled += 1
        finally:
            way = scope.get("way", "other")
            self._desk.metrics.answered(way, str(watched.status or "gone"), time.monotonic() - begun)

    async def _answer(self, scope: Scope, receive: Receive, send: _Watched) -> None:
        seconds = self._desk.limits.send_seconds
        try:
            if (early := self._early(scope)) is not None:
                await early.send(send, seconds)
            else:
                await self._inner(scope, receive, send)
        except (HTTPException, RefusedError) as error:
            await _failed(_refused(error, scope), send, seconds)

    def _early(self, scope: Scope) -> Reply | None:
        """Refuse who may not ask; answer what needs no endpoint."""
        if scope["http_version"] not in ("1.0", "1.1"):
            raise RefusedError(400, f"HTTP {scope['http_version']} is not spoken here; HTTP 1.1 is")
        # Two servers in a row could read two different requests.
        if _all(scope, b"content-length") and _all(scope, b"transfer-encoding"):
            raise RefusedError(400, "give Content-Length or Transfer-Encoding, not both")
        gate, hosts, origins = self._gate, _all(scope, b"host"), _all(scope, b"origin")
        if not _is_socket(scope):
            gate.check_host(hosts)
        gate.check_origin(origins, hosts)
        if scope["method"] == "OPTIONS":
            return Reply(b"", 204, headers=self._preflight(scope, origins))
        return None

    def _preflight(self, scope: Scope, origins: list[str]) -> Mapping[str, str]:
        methods = sorted({one.method for one in ENDPOINTS if one.path == scope["path"]})
        allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])
        if not origins:
            return {"allow": allowed}
        return {
            "allow": allowed,
            "access-control-allow-methods": allowed,
            "access-control-allow-headers": _ALLOWED_HEADERS,
            "access-control-max-age": "600",
        }

    def _extra(self, scope: Scope) -> dict[str, str]:
        extra = {**_FIXED, "x-request-id": uuid.uuid4().hex}
        for origin in _all(scope, b"origin"):
            if self._gate.allows(origin):
                extra |= {"access-control-allow-origin": origin, "vary": "origin"}
        return extra


class _Answering:
    """One endpoint, as an ASGI application."""

    def __init__(self, endpoint: Endpoint, desk: Desk, gate: Gate) -> None:
        self._endpoint, self._desk, self._gate = endpoint, desk, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        scope["way"] = self._endpoint.path  # the same dict as outside, which counts by it
        watched = send if isinstance(send, _Watched) else _Watched(send, {})
        try:
            asked = await self._read(scope, receive)
            await until_gone(receive, self._answer(asked, watched))
        except GoneError:
            raise
        except Exception as error:
            await _failed(error, watched, self._desk.limits.send_seconds)

    async def _read(self, scope: Scope, receive: Receive) -> Asked:
        """The request, checked."""
        endpoint, desk, request = self._endpoint, self._desk, Request(scope, receive)
        if not endpoint.open:
            self._gate.check_token(request.headers.get("authorization"))
        body = None
        if endpoint.body is not None:
            body = checked(endpoint.body, parsed(await read(request, desk.limits), desk.limits))
            desk.check_model(getattr(body, "model", None))
        return Asked(desk, body, dict(request.path_params), request.headers.get("accept", ""), endpoint.path)

    async def _answer(self, asked: Asked, send: _Watched) -> None:
        if not self._endpoint.place:
            await _sent(await self._endpoint.handle(asked), send, self._desk.limits)
            return
        async with self._desk.place():
            await _sent(await self._endpoint.handle(asked), send, self._desk.limits)


class _Watched:
    """What is sent, with what every reply has; remembers how far it came."""

    def __init__(self, send: Send, extra: Mapping[str, str]) -> None:
        self._send = send
        self._extra = [(name.encode(), value.encode("latin-1", "replace")) for name, value in extra.items()]
        self.status: int | None = None
        self.streams = False

    async def __call__(self, message: Message) -> None:
        """Send it on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), *self._extra]
            self.streams = any(value.startswith(b"text/event-stream") for _, value in headers)
            message = {**message, "headers": headers}
        await self._send(message)


async def _sent(reply: Reply | Events, send: _Watched, limits: Limits) -> None:
    await reply.send(send, limits.send_seconds)


async def _failed(error: Exception, send: _Watched, seconds: float) -> None:
    """Tell an error: by its status, or in the stream that has begun."""
    said = told(error)
    if not said.expected:
        _LOG.error("a request failed", exc_info=error)
    if send.status is None:
        await json_reply(said.body, said.status, said.headers).send(send, seconds)
    elif send.streams:
        await send({"type": "http.response.body", "body": event(said.body), "more_body": False})
    else:
        raise GoneError from error


def _refused(error: Exception, scope: Scope) -> Exception:
    """Starlette's errors as ours."""
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == HTTPStatus.NOT_FOUND:
        known = ", ".join(sorted({one.path for one in ENDPOINTS}))
        return RefusedError(
            404, f"there is no {str(scope['path'])[:200]}; there are {known}", code="unknown_path"
        )
    method = str(scope["method"])[:20]
    return RefusedError(
        error.status_code, f"{method} is not how {str(scope['path'])[:200]} is asked", code="method"
    )


def _all(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _is_socket(scope: Scope) -> bool:
    """Whether it came by a Unix socket, which no web page reaches; its address has no port."""
    server = scope.get("server")
    return server is not None and server[1] is None
