"""The server as a whole: where it listens, how it drains, and as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from llm.serve.asking import ask, until

from benchmarks.serving_echo import EchoClient
from mindset.errors import BusyError, MissingError, UsageError
from mindset.llm.capabilities import Capabilities
from mindset.llm.scripted import ScriptedClient
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.listening import Doors
from mindset.llm.serve.server import Server, serving

CHAT = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "one two three four five six seven eight"}]
SOURCES = Path(__file__).resolve().parents[3] / "src"
Serve = Callable[..., Server]


def test_one_process_at_all_doors(served: Serve, tmp_path: Path) -> None:
    server = served(None, Doors(http=0, grpc=0, socket=tmp_path / "h", grpc_socket=tmp_path / "g"))
    urls = server.urls
    assert urls.http.startswith("http://127.0.0.1:")
    assert urls.http.endswith("/v1")
    assert urls.grpc.startswith("grpc://127.0.0.1:")
    assert urls.socket == f"unix:{tmp_path / 'h'}"
    assert urls.all == (urls.http, urls.socket, urls.grpc, urls.grpc_socket)
    assert (tmp_path / "g").stat().st_mode & 0o077 == 0


def test_it_takes_its_sockets_away(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(EchoClient(), Doors(socket=tmp_path / "h", grpc_socket=tmp_path / "g")):
            assert (tmp_path / "h").is_socket()
        assert list(tmp_path.iterdir()) == []


def test_places_that_are_taken(served: Serve, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for doors in (Doors(http=port), Doors(grpc=port)):
            with (
                pytest.raises(BusyError, match=f"127.0.0.1:{port}: cannot listen there"),
                serving(EchoClient(), doors),
            ):
                pass
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(UsageError, match="is no socket"),
        serving(EchoClient(), Doors(socket=tmp_path / "file")),
    ):
        pass
    served(None, Doors(socket=tmp_path / "s"))
    with (
        pytest.raises(BusyError, match="another process serves there"),
        serving(EchoClient(), Doors(socket=tmp_path / "s")),
    ):
        pass
    with (
        pytest.raises(UsageError, match="no host"),
        serving(EchoClient(), Doors("nowhere.invalid", http=0), token="x" * 20),
    ):
        pass


@pytest.mark.parametrize(
    ("doors", "words"),
    [
        ({}, "nowhere to listen"),
        ({"http": 70000}, "port 70000"),
        ({"http": 5, "grpc": 5}, "give two"),
        ({"socket": Path("a"), "grpc_socket": Path("a")}, "give two"),
    ],
    ids=str,
)
def test_doors_that_cannot_be(doors: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Doors(**doors)


def test_beyond_this_machine_only_with_a_token() -> None:
    with pytest.raises(UsageError, match="can be reached from other machines: give --token-file"):
        Server(EchoClient(), Doors("0.0.0.0", http=0))  # noqa: S104
    with pytest.raises(UsageError, match="every web page"):
        Server(EchoClient(), origins=["*"])
    with pytest.raises(UsageError, match="is no origin"):
        Server(EchoClient(), origins=["page.example/x"])
    with serving(EchoClient(), Doors("0.0.0.0", http=0), token="a-token-of-many-letters") as server:  # noqa: S104
        assert ask(server.urls.http.replace("0.0.0.0", "127.0.0.1"), "/v1/models").status == 401  # noqa: S104


def test_limits_that_let_nothing_through() -> None:
    with pytest.raises(UsageError, match="places=0"):
        Limits(places=0)


class Missing(ScriptedClient):
    """A model that is not there."""

    async def _prepare(self) -> None:
        raise MissingError("no such model")


def test_a_model_that_is_missing_is_found_out_before_anybody_asks(tmp_path: Path) -> None:
    with (
        pytest.raises(MissingError, match="no such model"),
        serving(Missing(["x"]), Doors(socket=tmp_path / "s")),
    ):
        pytest.fail("it serves")
    assert list(tmp_path.iterdir()) == []


class Closing(EchoClient):
    """Says whether it was closed."""

    closed = False

    async def _close(self) -> None:
        self.closed = True


def test_draining_ends_what_runs_and_refuses_what_comes() -> None:
    client = Closing(pace=0.08)
    said: list[str] = []
    with serving(client) as server:
        url = server.urls.http

        def read() -> None:
            with openai.OpenAI(base_url=url, api_key="none") as asking:
                stream = asking.chat.completions.create(model="echo", messages=HELLO, stream=True)
                said.extend(one.choices[0].delta.content or "" for one in stream)

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: server.desk.taken == 1)
        server.stop()
        until(lambda: server.desk.draining)
        refused = ask(url, CHAT, {"messages": HELLO})
        assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (
            503,
            "stopping",
            "5",
        )
        health = ask(url, "/health")
        assert (health.status, health.json["status"]) == (503, "draining")
        assert not client.closed
    reader.join()
    assert "".join(said) == f"You said: {HELLO[0]['content']}"
    assert client.closed
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/health")


@pytest.mark.parametrize("how", ["told twice", "out of patience"])
@pytest.mark.parametrize("stream", [True, False])
def test_draining_breaks_off_what_takes_too_long(how: str, stream: bool) -> None:
    replies: list[Any] = []
    limits = Limits(grace_seconds=0.3 if how == "out of patience" else 60)
    begun = time.monotonic()
    with serving(EchoClient(pace=0.5), limits=limits) as server:
        url = server.urls.http
        body = {"messages": [{"role": "user", "content": "word " * 100}], "stream": stream}
        reader = threading.Thread(target=lambda: replies.append(ask(url, CHAT, body)))
        reader.start()
        until(lambda: server.desk.taken == 1)
        time.sleep(0.6)
        server.stop()
        if how == "told twice":
            server.break_off()
    reader.join()
    assert time.monotonic() - begun < 8
    (reply,) = replies
    if stream:
        assert reply.events[-1]["error"]["code"] == "stopping"
        assert reply.events[1]["choices"][0]["delta"]["content"] == "You"
    else:
        assert (reply.status, reply.error["code"]) == (503, "stopping")


class Process:
    """`mindset serve` as a process of its own."""

    def __init__(self, *options: object, **environment: str) -> None:
        command = [sys.executable, "-m", "mindset", "serve", *map(str, options), "--json"]
        environment = dict(os.environ) | {"PYTHONPATH": str(SOURCES)} | environment
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def urls(self) -> dict[str, str]:
        told = ""
        while not told.endswith("\n}\n"):
            line = self.process.stdout.readline()  # type: ignore[union-attr]
            assert line, self.process.communicate()
            told += line
        found: dict[str, str] = json.loads(told)["urls"]
        return found

    def ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture
def process() -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def start(*options: object, **environment: str) -> Process:
        running.append(Process(*options, **environment))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.ended()


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"text": "one two three four", "pace": 0.2}\n' * 3, encoding="utf-8")
    return f"script:{path}"


def test_a_process_that_is_told_to_stop(process: Callable[..., Process], script: str, tmp_path: Path) -> None:
    one = process(script, "--http", 0, "--grpc", tmp_path / "g", "--socket", tmp_path / "h")
    urls = one.urls()
    assert urls["grpc_socket"] == f"unix:{tmp_path / 'g'}"
    replies: list[Any] = []
    reader = threading.Thread(target=lambda: replies.append(ask(urls["http"], CHAT, {"messages": HELLO})))
    reader.start()
    until(lambda: ask(urls["http"], "/health").json["taken"] == 1)
    one.process.send_signal(signal.SIGTERM)
    reader.join(20)
    assert replies[0].json["choices"][0]["message"]["content"] == "one two three four"
    assert one.ended() == (0, "")
    assert not (tmp_path / "g").exists()
    assert not (tmp_path / "h").exists()


def test_a_process_that_is_told_twice_breaks_off(process: Callable[..., Process], tmp_path: Path) -> None:
    path = tmp_path / "slow.jsonl"
    path.write_text('{"text": "one two three four", "pace": 20}\n', encoding="utf-8")
    one = process(f"script:{path}", "--http", 0)
    url = one.urls()["http"]
    replies: list[Any] = []
    reader = threading.Thread(target=lambda: replies.append(ask(url, CHAT, {"messages": HELLO})))
    reader.start()
    until(lambda: ask(url, "/health").json["taken"] == 1)
    one.process.send_signal(signal.SIGINT)
    until(lambda: ask(url, "/health").status == 503)
    one.process.send_signal(signal.SIGINT)
    reader.join(20)
    assert replies[0].error["code"] == "stopping"
    assert one.ended() == (0, "")


def test_what_a_model_cannot_do_is_refused(served: Serve) -> None:
    client = ScriptedClient(["yes"], model="tiny", capabilities=Capabilities(chat=True, stream=True))
    url = served(client).urls.http
    for path, body in (
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/encode", {"text": "x"}),
        ("/v1/decode", {"ids": [1]}),
        ("/v1/forward", {"prompt": "x"}),
        (CHAT, {"messages": HELLO, "tools": [{"type": "function", "function": {"name": "f"}}]}),
        (CHAT, {"messages": HELLO, "response_format": {"type": "json_object"}}),
        (CHAT, {"messages": HELLO, "logprobs": True, "stream": True}),
    ):
        reply = ask(url, path, body)
        assert (reply.status, reply.error["code"]) == (400, "unsupported")
        assert "cannot be asked for" in reply.error["message"]
