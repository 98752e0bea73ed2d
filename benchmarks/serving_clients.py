"""Clients that were not made for us: OpenAI's own, `curl`, and one that learns gRPC by reflection, unchanged.

    python -m benchmarks.serving_clients

Each asks a real model behind `mindset serve`, every endpoint that it knows, streams and what is left early included. A
check is a sentence about what came back; what is counted is the checks that did not hold, an exception among them.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from benchmarks.serving_doors import served
from benchmarks.timing import scratch

__all__ = ["Clients", "clients"]

MODEL = "smollm2"
SERVICE = "mindset.llm.v1.LanguageModel"
_QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
           "additionalProperties": False}  # fmt: skip
_TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather in a city.",
         "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}},
                        "required": ["city"], "additionalProperties": False}}}  # fmt: skip


@dataclass
class Clients:
    """What was checked."""

    checks: int = 0
    failures: list[str] = field(default_factory=list)

    def check(self, what: str, holds: Callable[[], object]) -> None:
        """One check; an exception is a failure like any other."""
        self.checks += 1
        try:
            if not holds():
                self.failures.append(what)
        except Exception as error:  # whatever a client raises
            self.failures.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")


def clients(model: str = MODEL) -> Clients:
    """Ask with all three."""
    found = Clients()
    with scratch() as folder, served(folder, model, "--socket", str(folder / "s")) as urls:
        _openai(found, urls["http"], model)
        _curl(found, urls["http"], folder / "s")
        _reflection(found, urls["grpc"].removeprefix("grpc://"))
        found.check("no place is kept at the end", lambda: _all_free(urls["http"]))
    return found


def _openai(found: Clients, url: str, model: str) -> None:
    import openai

    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        chat: Any = client.chat.completions.create
        asked: dict[str, Any] = {"model": model, "messages": _QUESTION, "max_tokens": 12, "temperature": 0}
        found.check("models.list", lambda: model in [one.id for one in client.models.list()])
        found.check("models.retrieve", lambda: client.models.retrieve(model).id == model)
        found.check("chat", lambda: "Paris" in chat(**asked).choices[0].message.content)
        found.check("chat, usage", lambda: chat(**asked).usage.completion_tokens > 0)
        found.check(
            "chat, streamed", lambda: _streamed(chat, asked) == chat(**asked).choices[0].message.content
        )
        found.check("chat, a stream left early", lambda: _left_early(chat, asked | {"max_tokens": 400}))
        found.check("chat, JSON schema", lambda: "city" in json.loads(chat(
            **asked | {"max_tokens": 60}, response_format={"type": "json_schema", "json_schema": {
                "name": "place", "schema": _SCHEMA, "strict": True}}).choices[0].message.content))  # fmt: skip
        found.check("chat, a tool that must be used", lambda: json.loads(chat(
            **asked | {"max_tokens": 80}, tools=[_TOOL], tool_choice="required",
        ).choices[0].message.tool_calls[0].function.arguments)["city"])  # fmt: skip
        found.check("chat, logprobs", lambda: len(chat(
            **asked, logprobs=True, top_logprobs=3).choices[0].logprobs.content[0].top_logprobs) == 3)  # fmt: skip
        warm = asked | {"temperature": 1.0, "seed": 7}
        found.check("chat, seed", lambda: chat(**warm).choices[0].message.content
                    == chat(**warm).choices[0].message.content)  # fmt: skip
        found.check(
            "chat, stop", lambda: "Paris" not in chat(**asked, stop=["Paris"]).choices[0].message.content
        )
        found.check(
            "chat, wrong temperature",
            lambda: _refused(openai.BadRequestError, chat, asked | {"temperature": -1}),
        )
        found.check(
            "chat, no such model", lambda: _refused(openai.NotFoundError, chat, asked | {"model": "gpt-9"})
        )
        text: Any = client.completions.create
        raw = {"model": model, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
        found.check("completions", lambda: text(**raw).choices[0].text)
        found.check("completions, streamed", lambda: "".join(one.choices[0].text for one in text(**raw, stream=True)
                    if one.choices) == text(**raw).choices[0].text)  # fmt: skip
        found.check(
            "embeddings", lambda: len(client.embeddings.create(model=model, input=["a", "b"]).data) == 2
        )
        answer: Any = client.responses.create
        short = {
            "model": model,
            "input": "What is the capital of France?",
            "max_output_tokens": 16,
            "temperature": 0,
        }
        found.check("responses", lambda: "Paris" in answer(**short).output_text)
        found.check("responses, streamed", lambda: [one.type for one in answer(**short, stream=True)][-1]
                    in ("response.completed", "response.incomplete"))  # fmt: skip


def _streamed(chat: Any, asked: dict[str, Any]) -> str:
    return "".join(one.choices[0].delta.content or "" for one in chat(**asked, stream=True) if one.choices)


def _left_early(chat: Any, asked: dict[str, Any]) -> bool:
    stream = chat(**asked, stream=True)
    first = next(iter(stream))
    stream.close()
    return bool(first.id)


def _refused(kind: type[Exception], chat: Any, asked: dict[str, Any]) -> bool:
    try:
        chat(**asked)
    except kind:
        return True
    return False


def _curl(found: Clients, url: str, socket: Path) -> None:
    json_body = ["-H", "Content-Type: application/json", "-d"]
    chat = json.dumps({"messages": _QUESTION, "max_tokens": 12, "temperature": 0})
    raw = json.dumps({"prompt": "Once upon a time", "max_tokens": 8, "seed": 1, "stream": True})
    base = url.removesuffix("/v1")
    for what, told, holds in (
        ("chat", [f"{url}/chat/completions", *json_body, chat], lambda said: "Paris" in said),
        ("a stream", ["-N", f"{url}/completions", *json_body, raw], lambda said: said.rstrip().endswith("[DONE]")),
        ("models", [f"{url}/models"], lambda said: json.loads(said)["data"]),
        ("embeddings", [f"{url}/embeddings", *json_body, '{"input": "a"}'], lambda said: json.loads(said)["data"]),
        ("responses", [f"{url}/responses", *json_body, '{"input": "Hi", "max_output_tokens": 4}'],
         lambda said: json.loads(said)["output"]),
        ("forward", [f"{url}/forward", *json_body, '{"prompt": "The capital", "last": true}'],
         json.loads),
        ("encode", [f"{url}/encode", *json_body, '{"text": "abc"}'], lambda said: json.loads(said)["ids"]),
        ("decode", [f"{url}/decode", *json_body, '{"ids": [1, 2]}'], lambda said: "text" in json.loads(said)),
        ("health", [f"{base}/health"], lambda said: "taken" in json.loads(said)),
        ("metrics", [f"{base}/metrics"], lambda said: said.startswith("#")),
        ("openapi", [f"{base}/openapi.json"], lambda said: json.loads(said)["paths"]),
        ("a Unix socket", ["--unix-socket", str(socket), "localhost/health"], lambda said: "taken" in json.loads(said)),
    ):  # fmt: skip
        found.check(f"curl, {what}", lambda told=told, holds=holds: holds(_said(told)))  # type: ignore[misc]
    left = [
        "-m",
        "1",
        "-N",
        f"{url}/completions",
        *json_body,
        json.dumps({"prompt": "Once", "max_tokens": 2000, "stream": True}),
    ]
    found.check("curl, a stream left early", lambda: "data:" in _said(left))


def _said(told: list[str]) -> str:
    return subprocess.run(
        ["curl", "-s", *told], capture_output=True, text=True, timeout=120, check=False
    ).stdout


def _reflection(found: Clients, address: str) -> None:
    """Knows the service's name, and finds out the rest."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        found.check("reflection lists the service", lambda: SERVICE in database.get_services())
        service = DescriptorPool(database).FindServiceByName(SERVICE)

        def call(name: str, **fields: Any) -> Any:
            method = service.methods_by_name[name]
            request, reply = (GetMessageClass(one) for one in (method.input_type, method.output_type))
            make = channel.unary_stream if method.server_streaming else channel.unary_unary
            path = f"/{SERVICE}/{name}"
            return make(path, request.SerializeToString, reply.FromString)(request(**fields), timeout=120)

        options = {"max_tokens": 12, "temperature": 0.0}
        found.check("gRPC About", lambda: call("About"))
        found.check(
            "gRPC Encode, Decode",
            lambda: call("Decode", ids=call("Encode", text="abc def").ids).text == "abc def",
        )
        found.check("gRPC Embed", lambda: call("Embed", texts=["a", "b"]))
        found.check("gRPC Forward", lambda: list(call("Forward", prompt="The capital", last=True)))
        found.check(
            "gRPC Complete",
            lambda: list(call("Complete", prompt="Once", options=options))[-1].HasField("finished"),
        )
        found.check("gRPC Complete, left early", lambda: _cancelled(call("Complete", prompt="Once",
                    options={"max_tokens": 2000, "temperature": 0.0})))  # fmt: skip
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        found.check("gRPC health", lambda: health.Check(health_pb2.HealthCheckRequest()).status
                    == health_pb2.HealthCheckResponse.SERVING)  # fmt: skip


def _cancelled(stream: Any) -> bool:
    first = next(stream)
    stream.cancel()
    return first is not None


def _all_free(url: str) -> bool:
    for _ in range(100):
        if not httpx2.get(url.removesuffix("/v1") + "/health").json()["taken"]:
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    told = clients()
    print(f"{told.checks} checks, {len(told.failures)} failures")
    print("\n".join(told.failures))
