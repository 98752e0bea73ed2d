"""Whatever comes at an open port is answered by one error object, and nothing is left behind."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from llm.serve.asking import JSON, ask, raw, status_of, until

from benchmarks.serving_echo import EchoClient
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.listening import Doors
from mindset.llm.serve.server import Server
from mindset.llm.serve.table import ENDPOINTS

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
TOKEN = "a-token-of-many-letters"
POSTS = [one.path for one in ENDPOINTS if one.method == "POST"]
GETS = [one.path.replace("{name:path}", "echo") for one in ENDPOINTS if one.method == "GET"]
Serve = Callable[..., Server]


# -------------------------------------------------------------------------------------------------- paths, methods
@pytest.mark.parametrize("path", GETS)
def test_what_is_to_be_got(echo: str, path: str) -> None:
    assert ask(echo, path).status == 200
    head = ask(echo, path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert ask(echo, path, {}, method="POST").status == 405


@pytest.mark.parametrize("path", POSTS)
def test_what_is_to_be_asked(echo: str, path: str) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
        reply = ask(echo, path, method=method)
        assert (reply.status, reply.error["code"]) == (405, "method")
    assert ask(echo, path, method="HEAD").status == 405
    options = ask(echo, path, method="OPTIONS")
    assert (options.status, options.headers["allow"], options.body) == (204, "POST, OPTIONS", b"")
    assert not any(name.startswith("access-control") for name in options.headers)
    for body in (b"{}", b"[]", b"null", b"5", b'"x"', b"{", b"", b"\xff"):
        reply = ask(echo, path, body)
        assert reply.status == 400, body
        assert reply.error["message"]


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v1/chat/completions/", "/v1//models", "/../etc/passwd", "/v1/%2e%2e/%2e%2e/etc/passwd",
     "/v1/models/../../health", "/static/x", "/docs", "/v1/models/%00", "/v1/models/nothing", "/v1/models/",
     "/v1/models/a/b",
     "/%ff%fe", "/v1/models/" + "x" * 5000, "/?model=echo", "//evil.example/v1/models", "/v1/models?x=1%zz/nothing"],
    ids=lambda path: path[:30],
)  # fmt: skip
def test_paths_that_lead_nowhere(echo: str, path: str) -> None:
    reply = ask(echo, path)
    if path.startswith("/v1/models?"):
        assert reply.status == 200
    else:
        assert reply.status == 404
        assert reply.error["code"] in ("unknown_path", "model_not_found")


def test_what_is_said_of_the_server(served: Serve) -> None:
    url = served(names=("echo", "org/echo")).urls.http
    models = ask(url, "/v1/models").json["data"]
    assert [one["id"] for one in models] == ["echo", "org/echo"]
    assert models[0]["content_hash"] == "e" * 40
    assert "forward" in models[0]["capabilities"]
    assert ask(url, "/v1/models/org/echo").json["id"] == "org/echo"
    assert ask(url, "/v1/models/org%2Fecho").json["id"] == "org/echo"
    assert ask(url, "/health").json == {"status": "ok", "taken": 0, "places": 64}
    assert ask(url, CHAT, HELLO | {"model": "org/echo"}).json["model"] == "org/echo"
    metrics = ask(url, "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'mindset_requests_total{way="/v1/chat/completions",status="200"} 1' in metrics.body.decode()


# ------------------------------------------------------------------------------------------------------ bodies
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": 'Application/JSON; charset="UTF-8"'}, 200),
        ({"Content-Type": "application/json;charset=utf-8", "Content-Encoding": "identity"}, 200),
        ({"Content-Type": "application/json; boundary=x"}, 200),
    ],
    ids=str,
)
def test_what_a_body_says_that_it_is(echo: str, headers: dict[str, str], status: int) -> None:
    data = json.dumps(HELLO).encode()
    body = gzip.compress(data) if headers.get("Content-Encoding") == "gzip" else data
    assert ask(echo, CHAT, body, headers=headers).status == status


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "no JSON"),
        (b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', "no JSON"),
        (b'{"temperature": NaN}', "no JSON"),
        (b'{"temperature": Infinity}', "no JSON"),
        (b'{"temperature": 1e999}', "too large"),
        (b'{"whatever": 1e999}', "too large"),
        (b'{"whatever": [' + b"9" * 400 + b"]}", "too large"),
        (b'{"whatever": ' + b"9" * 9000 + b"}", "no JSON"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested deeper"),
        (b"[" * 100000, "no JSON"),
        (b'{"a":' * 100000, "no JSON"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (json.dumps(HELLO).encode("utf-16"), "no JSON"),
        (json.dumps(HELLO).encode() + b"x", "no JSON"),
        (json.dumps(HELLO).encode()[:-1], "no JSON"),
        (b"'" + json.dumps(HELLO).encode() + b"'", "no JSON"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bodies_that_are_none(echo: str, body: bytes, words: str) -> None:
    reply = ask(echo, CHAT, body)
    assert reply.status == 400
    assert words in reply.error["message"]
    assert len(reply.body) < 600


def test_nothing_is_larger_than_granted(served: Serve) -> None:
    limits = Limits(body_bytes=2000, messages=3, tools=1, texts=2, ids=4, reply_bytes=5000, image_bytes=300)
    url = served(limits=limits).urls.http
    tool = {"type": "function", "function": {"name": "a"}}
    for path, body in (
        (CHAT, HELLO | {"user": "x" * 3000}),
        (CHAT, {"messages": HELLO["messages"] * 4}),
        (CHAT, HELLO | {"tools": [tool, tool]}),
        ("/v1/responses", {"input": HELLO["messages"] * 4}),
        ("/v1/embeddings", {"input": ["a", "b", "c"]}),
        ("/v1/forward", {"prompt": "abcdef", "hidden_states": True}),
    ):
        reply = ask(url, path, body)
        assert reply.status == 413, (path, reply.body)
        assert reply.error["type"] == "invalid_request_error"
    for path in ("/v1/decode", "/v1/forward"):
        assert ask(url, path, {"ids": [1, 2, 3, 4, 5]}).status == 400
    assert ask(url, "/v1/forward", {"prompt": "abcdef", "last": True}).status == 200
    endless = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    told = raw(url, endless + b"Content-Length: 99999999999999999999999\r\n\r\n{")
    assert status_of(told) in (400, 413)
    chunk = b"7d0\r\n" + b"x" * 2000 + b"\r\n"
    assert status_of(raw(url, endless + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3)) == 413


def test_a_body_that_does_not_come(served: Serve) -> None:
    server = served(limits=Limits(body_seconds=0.3, header_seconds=0.3))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert status_of(raw(server.urls.http, head + b"Content-Length: 100\r\n\r\n{")) == 408
    begun = time.monotonic()
    assert raw(server.urls.http, b"POST /v1/chat") == b""  # let go of, without a word
    assert time.monotonic() - begun < 2
    assert server.desk.taken == 0


def test_a_connection_waits_longer_than_clients_do(served: Serve) -> None:
    """httpx keeps a connection for 5 seconds: a server that closed it then would meet the next request half-way."""
    patient, brief = served(), served(limits=Limits(idle_seconds=1))
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(closing(http.client.HTTPConnection(one.urls.http.split("/")[2])))
            for one in (patient, brief)
        )
        for one in (first, second):
            one.request("GET", "/health")
            assert one.getresponse().read()
        time.sleep(5.5)
        first.request("GET", "/health")
        assert first.getresponse().read()
        assert second.sock.recv(1) == b"", "let go of"


# ---------------------------------------------------------------------------------------------- who may ask
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LocalHost:1", 200), ("127.0.0.1:99", 200), ("[::1]", 200), ("[::1]:8080", 200),
        ("evil.example", 403), ("evil.example:8080", 403), ("localhost.evil.example", 403), ("127.0.0.1.nip.io", 403),
        ("localhost@evil.example", 403), ("evil.example@localhost", 403), ("localhost/x", 403),
        ("", 403), ("0.0.0.0", 403),  # noqa: S104
        ("[::1", 403), ("localhost:x", 403), ("localhost,evil.example", 403),
    ],
)  # fmt: skip
def test_a_name_that_is_not_this_machines(echo: str, host: str, status: int) -> None:
    reply = ask(echo, "/v1/models", headers={"Host": host})
    assert reply.status == status
    if status == 403:
        assert reply.error["code"] == "host"


@pytest.mark.parametrize("path", ["/health", "/metrics", CHAT])
def test_a_rebound_name_reaches_nothing(echo: str, path: str) -> None:
    assert ask(echo, path, HELLO if path == CHAT else None, headers={"Host": "evil.example"}).status == 403


def test_tricks_with_headers(echo: str) -> None:
    good = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
    close = b"Connection: close\r\n\r\n"
    assert status_of(raw(echo, good + close)) == 200
    for bad in (
        good + b"Host: evil.example\r\n" + close,
        b"GET /v1/models HTTP/1.1\r\n" + close,
        b"GET /v1/models HTTP/1.0\r\n\r\n",
        good + b"X: a\r\n b\r\nBad Header: x\r\n" + close,
        good + b"X: a\x00b\r\n" + close,
        good + b"Content-Length: 5\r\nContent-Length: 6\r\n" + close,
        good + b"Content-Length: -1\r\n" + close,
        good + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n" + close + b"0\r\n\r\n",
        good + b"Transfer-Encoding: gzip, chunked\r\n" + close,
        b"GET /v1/models HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET  /v1/models\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    ):
        assert 400 <= status_of(raw(echo, bad)) < 500, bad
    endless = raw(echo, good + b"X: " + b"y" * (1 << 17) + b"\r\n" + close)
    assert not endless or status_of(endless) == 400  # it hangs up before all has come
    assert ask(echo, "/health").status == 200


def test_without_the_token_nothing_but_health(served: Serve) -> None:
    url = served(token=TOKEN).urls.http
    assert ask(url, "/health").status == 200
    for path in [one for one in GETS if one != "/health"]:
        assert ask(url, path).status == 401
    for shown in (
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        TOKEN,
        f"Bearer {TOKEN[:-1]}",
        "Bearer \xff",
    ):
        reply = ask(url, CHAT, b"{not read", headers={"Authorization": shown} if shown else {})
        assert (reply.status, reply.error["type"]) == (401, "authentication_error")
        assert reply.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in reply.body.decode()
    for shown in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        assert ask(url, CHAT, HELLO, headers={"Authorization": shown, "Host": "any.example"}).status == 200
    with openai.OpenAI(base_url=url, api_key=TOKEN) as client:
        assert client.models.list().data[0].id == "echo"
    with openai.OpenAI(base_url=url, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_web_pages_may_ask_only_where_they_are_allowed(served: Serve) -> None:
    closed, opened = served().urls.http, served(origins=("https://page.example",)).urls.http
    page = {"Origin": "https://page.example"}
    assert ask(closed, CHAT, HELLO, headers=page).error["code"] == "origin"
    assert ask(closed, CHAT, method="OPTIONS", headers=page).status == 403
    own = f"http://127.0.0.1:{urlsplit(closed).port}"
    assert ask(closed, CHAT, HELLO, headers={"Origin": own}).status == 200
    assert ask(opened, CHAT, HELLO, headers={"Origin": "https://other.example"}).status == 403
    assert ask(opened, CHAT, HELLO, headers={"Origin": "null"}).status == 403
    reply = ask(opened, CHAT, HELLO, headers=page)
    assert reply.headers["access-control-allow-origin"] == "https://page.example"
    preflight = ask(opened, CHAT, method="OPTIONS", headers=page | {"Access-Control-Request-Method": "POST"})
    assert preflight.status == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "POST" in preflight.headers["access-control-allow-methods"]
    wrong = ask(opened, CHAT, {}, headers=page)
    assert (wrong.status, wrong.headers["access-control-allow-origin"]) == (400, "https://page.example")


# ---------------------------------------------------------------------------------------------------- places
def request(body: str) -> bytes:
    """A dialog as bytes for a socket."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def test_who_goes_away_frees_a_place(served: Serve) -> None:
    client = EchoClient(pace=0.05)
    server = served(client, limits=Limits(places=2))
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 400}], "stream": True})
    parts = urlsplit(server.urls.http)
    gone = [socket.create_connection((parts.hostname, parts.port)) for _ in range(2)]
    for one in gone:
        one.sendall(request(body))
    until(lambda: server.desk.taken == 2)
    full = ask(server.urls.http, CHAT, HELLO)
    assert (full.status, full.error["type"], full.headers["retry-after"]) == (429, "rate_limit_error", "1")
    assert "all 2 places are taken" in full.error["message"]
    assert ask(server.urls.http, "/health").json["taken"] == 2
    assert gone[0].recv(9) == b"HTTP/1.1 "
    for one in gone:
        one.close()
    until(lambda: server.desk.taken == 0)
    assert ask(server.urls.http, CHAT, HELLO).status == 200
    assert server.desk.metrics.cancelled == 2
    assert server.desk.metrics.requests[CHAT, "429"] == 1


def test_who_goes_away_before_the_first_word_frees_a_place(served: Serve) -> None:
    server = served(EchoClient(delay=30))
    for stream in (True, False):
        body = json.dumps(HELLO | {"stream": stream})
        parts = urlsplit(server.urls.http)
        with socket.create_connection((parts.hostname, parts.port)) as one:
            one.sendall(request(body))
            until(lambda: server.desk.taken == 1)
        until(lambda: server.desk.taken == 0)


def test_who_reads_nothing_is_given_up(served: Serve) -> None:
    server = served(limits=Limits(send_seconds=0.5, body_bytes=64 << 20))
    body = json.dumps({"messages": [{"role": "user", "content": f"{'w' * 9000} " * 2000}], "stream": True})
    parts = urlsplit(server.urls.http)
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect((parts.hostname, parts.port))
        one.sendall(request(body))
        until(lambda: server.desk.taken == 1)
        until(lambda: server.desk.taken == 0, 60)
    assert server.desk.metrics.cancelled == 1


def test_who_waits_too_long_is_told_so(served: Serve) -> None:
    server = served(EchoClient(delay=30), limits=Limits(answer_seconds=0.3))
    for stream in (True, False):
        late = ask(server.urls.http, CHAT, HELLO | {"stream": stream})
        assert (late.status, late.error["code"]) == (504, "timeout")
    assert server.desk.taken == 0


def test_many_at_once_each_get_their_own(served: Serve) -> None:
    server = served(EchoClient(pace=0.001), limits=Limits(places=64))
    said: dict[int, str] = {}

    def go(number: int) -> None:
        with openai.OpenAI(base_url=server.urls.http, api_key="none") as client:
            for turn in range(3):
                word = f"w{number}-{turn}"
                messages: Any = [{"role": "user", "content": word}]
                stream = client.chat.completions.create(model="echo", messages=messages, stream=True)
                said[number * 10 + turn] = "".join(one.choices[0].delta.content or "" for one in stream)

    threads = [threading.Thread(target=go, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert said == {n * 10 + t: f"You said: w{n}-{t}" for n in range(8) for t in range(3)}
    until(lambda: server.desk.taken == 0)


# ---------------------------------------------------------------------------------------------------- other ways
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_curl_at_the_port_and_at_the_socket(served: Serve, tmp_path: Path) -> None:
    server = served(None, Doors(http=0, socket=tmp_path / "s"))
    data = ["-H", "Content-Type: application/json", "-d", json.dumps(HELLO | {"stream": True})]
    for where in (
        [server.urls.http + "/chat/completions"],
        ["--unix-socket", tmp_path / "s", "http://anything" + CHAT],
    ):
        done = subprocess.run(
            ["curl", "-sN", "--max-time", "20", *where, *data], capture_output=True, text=True
        )
        assert done.stdout.endswith("data: [DONE]\n\n")
    assert (tmp_path / "s").stat().st_mode & 0o077 == 0
    forgot = subprocess.run(
        ["curl", "-s", server.urls.http + "/chat/completions", "-d", "{}"], capture_output=True, text=True
    )
    assert "send the header Content-Type: application/json" in forgot.stdout


def test_a_connection_is_used_again_after_a_refusal(echo: str) -> None:
    body = json.dumps(HELLO).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    bad = head + b"Content-Length: 2\r\n\r\n{}"
    good = head + b"Connection: close\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    told = raw(echo, bad + good)  # two at once, one after the other
    assert told.count(b"HTTP/1.1 400") == told.count(b"HTTP/1.1 200") == 1
    assert JSON["Content-Type"] == "application/json"
