"""gRPC as any client of it sees it: reflection, health, statuses, deadlines, cancellation, tokens, and the memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from llm.serve.asking import until
from store.test_slab_store import make_memory

from benchmarks.serving_echo import EchoClient
from mindset.errors import MindsetError, ReadOnlyError
from mindset.llm.capabilities import Capabilities
from mindset.llm.scripted import Line, ScriptedClient
from mindset.llm.serve import llm_pb2 as pb
from mindset.llm.serve import llm_pb2_grpc
from mindset.llm.serve.grpc_failures import ERROR_KEY, RETRY_KEY
from mindset.llm.serve.limits import Limits
from mindset.llm.serve.listening import Doors
from mindset.llm.serve.server import Server, serving
from mindset.store.daemon.remote_memory import RemoteMemory

Serve = Callable[..., Server]
DOORS = Doors(grpc=0)
TOKEN = "a-token-of-many-letters"
SLOW = "word " * 200


@pytest.fixture
def channel(served: Serve) -> Any:
    with grpc.insecure_channel(served(None, DOORS).urls.grpc.removeprefix("grpc://")) as there:
        yield there


def stub_of(server: Server) -> tuple[Any, Any]:
    channel = grpc.insecure_channel(server.urls.grpc.removeprefix("grpc://"))
    return channel, llm_pb2_grpc.LanguageModelStub(channel)


def metadata(error: grpc.RpcError) -> dict[str, str]:
    return {key: value for key, value in error.trailing_metadata() or ()}  # type: ignore[attr-defined]  # noqa: C416


def test_a_client_that_knows_nothing_finds_out_by_reflection(channel: Any) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "mindset.llm.v1.LanguageModel" in database.get_services()
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("mindset.llm.v1.LanguageModel")
    method = service.methods_by_name["Encode"]
    request, reply = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{service.full_name}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )
    assert list(call(request(text="hé"), timeout=10).ids) == [104, 195, 169]
    database.channel = None  # type: ignore[attr-defined]


def test_health_and_what_it_is(channel: Any) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "mindset.llm.v1.LanguageModel"):
        told = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert told.status == health_pb2.HealthCheckResponse.SERVING
    about = llm_pb2_grpc.LanguageModelStub(channel).About(pb.AboutRequest(), timeout=10)
    assert (list(about.models), about.content_hash, about.memory, about.protocol) == (
        ["echo"],
        "e" * 40,
        False,
        1,
    )
    assert "forward" in about.capabilities


@pytest.mark.parametrize(
    ("method", "message", "code", "kind"),
    [
        ("Complete", pb.CompleteRequest(), "INVALID_ARGUMENT", "UsageError"),
        ("Complete", pb.CompleteRequest(prompt="x", model="other"), "NOT_FOUND", "MissingError"),
        (
            "Complete",
            pb.CompleteRequest(messages=[pb.Message(role="wizard")]),
            "INVALID_ARGUMENT",
            "DataError",
        ),
        ("Embed", pb.EmbedRequest(), "INVALID_ARGUMENT", "UsageError"),
        ("Decode", pb.DecodeRequest(ids=[999]), "INVALID_ARGUMENT", "DataError"),
        ("Forward", pb.ForwardRequest(), "INVALID_ARGUMENT", "UsageError"),
        ("Encode", pb.EncodeRequest(model="other"), "NOT_FOUND", "MissingError"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_meant(channel: Any, method: str, message: Any, code: str, kind: str) -> None:
    call = getattr(llm_pb2_grpc.LanguageModelStub(channel), method)
    whole = list if method in ("Complete", "Forward") else id
    with pytest.raises(grpc.RpcError) as found:
        whole(call(message, timeout=10))
    assert found.value.code().name == code  # type: ignore[attr-defined]
    assert metadata(found.value)[ERROR_KEY] == kind


def test_bytes_that_are_no_message_are_the_callers_error(channel: Any) -> None:
    for method in ("About", "Encode", "Embed"):
        with pytest.raises(grpc.RpcError) as found:
            channel.unary_unary(f"/mindset.llm.v1.LanguageModel/{method}")(b"\xff\xff\xff", timeout=10)
        assert found.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    with pytest.raises(grpc.RpcError) as found:
        channel.unary_unary("/mindset.llm.v1.LanguageModel/Nothing")(b"", timeout=10)
    assert found.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_errors_of_the_model_and_what_it_cannot(served: Serve) -> None:
    lines = [Line(fails="the line is dead"), Line(fails="later", retry=True, retry_after=7.5)]
    client = ScriptedClient(lines, model="tiny", capabilities=Capabilities(prompt=True, stream=True))
    client.policy = EchoClient().policy
    channel, stub = stub_of(served(client, DOORS))
    with channel:
        told = []
        for call in (stub.Complete, stub.Complete):
            with pytest.raises(grpc.RpcError) as found:
                list(call(pb.CompleteRequest(prompt="x"), timeout=10))
            told.append(
                (found.value.code().name, found.value.details(), metadata(found.value).get(RETRY_KEY))
            )  # type: ignore[attr-defined]
        with pytest.raises(grpc.RpcError) as found:
            stub.Embed(pb.EmbedRequest(texts=["x"]), timeout=10)
        told.append((found.value.code().name, metadata(found.value)[ERROR_KEY], None))  # type: ignore[attr-defined]
    assert told == [
        ("FAILED_PRECONDITION", "the line is dead", None),
        ("UNAVAILABLE", "later", "7.5"),
        ("INVALID_ARGUMENT", "UnsupportedRequestError", None),
    ]


@pytest.mark.parametrize("how", ["cancelled", "too late", "gone"])
def test_who_does_not_wait_frees_a_place(served: Serve, how: str) -> None:
    server = served(EchoClient(pace=0.05), DOORS, limits=Limits(places=1))
    channel, stub = stub_of(server)
    call = stub.Complete(pb.CompleteRequest(prompt=SLOW), timeout=1.0 if how == "too late" else 60)
    assert next(call).started.model == "echo"
    with pytest.raises(grpc.RpcError) as full:
        list(stub.Complete(pb.CompleteRequest(prompt="x"), timeout=10))
    assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert metadata(full.value) == {ERROR_KEY: "OverloadedError", RETRY_KEY: "1"}
    if how == "cancelled":
        call.cancel()
    elif how == "gone":
        channel.close()
    else:
        with pytest.raises(grpc.RpcError) as late:
            list(call)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    until(lambda: server.desk.taken == 0)
    channel.close()


def test_a_request_that_is_too_large(served: Serve) -> None:
    channel, stub = stub_of(served(None, DOORS, limits=Limits(body_bytes=5000)))
    with channel, pytest.raises(grpc.RpcError) as found:
        stub.Encode(pb.EncodeRequest(text="x" * 9000), timeout=10)
    assert found.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_without_the_token_nothing_but_health(served: Serve) -> None:
    channel, stub = stub_of(served(None, DOORS, token=TOKEN))
    with channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        for shown in ((), (("authorization", "Bearer wrong"),), (("authorization", f"Bearer {TOKEN}"),) * 2):
            for ask in (
                lambda s=shown: stub.About(pb.AboutRequest(), timeout=10, metadata=s),
                lambda s=shown: list(stub.Complete(pb.CompleteRequest(prompt="x"), timeout=10, metadata=s)),
            ):
                with pytest.raises(grpc.RpcError) as found:
                    ask()
                assert found.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        with pytest.raises(grpc.RpcError) as found:
            ProtoReflectionDescriptorDatabase(channel).get_services()
        assert found.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        about = stub.About(pb.AboutRequest(), timeout=10, metadata=(("authorization", f"Bearer {TOKEN}"),))
        assert list(about.models) == ["echo"]


def test_draining_ends_what_runs_and_refuses_what_comes() -> None:
    said: list[str] = []
    with serving(EchoClient(pace=0.08), DOORS) as server:
        channel, stub = stub_of(server)

        def read() -> None:
            call = stub.Complete(pb.CompleteRequest(prompt="one two three four five six"), timeout=30)
            said.extend(event.text.text for event in call)

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: server.desk.taken == 1)
        server.stop()
        until(lambda: server.desk.draining)
        with pytest.raises(grpc.RpcError) as found:
            list(stub.Complete(pb.CompleteRequest(prompt="x"), timeout=10))
        assert found.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert "stopping" in found.value.details()  # type: ignore[attr-defined]
    reader.join()
    channel.close()
    assert "".join(said) == "You said: one two three four five six"


def test_draining_breaks_off_what_takes_too_long() -> None:
    begun = time.monotonic()
    with serving(EchoClient(pace=0.3), DOORS, limits=Limits(grace_seconds=0.2)) as server:
        channel, stub = stub_of(server)
        call = stub.Complete(pb.CompleteRequest(prompt=SLOW), timeout=30)
        next(call)
        server.stop()
        with pytest.raises(grpc.RpcError) as found:
            list(call)
        assert (found.value.code().name, metadata(found.value)[ERROR_KEY]) == ("UNAVAILABLE", "CallError")  # type: ignore[attr-defined]
        channel.close()
    assert time.monotonic() - begun < 10


def test_the_memory_of_a_model_can_be_looked_at(served: Serve, tmp_path: Path) -> None:
    make_memory(tmp_path / "memory")
    server = served(None, DOORS, memory=tmp_path)
    channel, stub = stub_of(server)
    with channel:
        assert stub.About(pb.AboutRequest(), timeout=10).memory
        assert "mindset.memory.v1.Memory" in ProtoReflectionDescriptorDatabase(channel).get_services()
    with RemoteMemory(server.urls.grpc) as memory:
        assert memory.store.count() == 16
        assert {one.name for one in memory.store.shards()} == {"base"}
        with pytest.raises(ReadOnlyError):
            memory.delete([1])
        assert memory.store.count() == 16


def test_a_memory_behind_a_token(served: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_memory(tmp_path / "memory")
    url = served(None, DOORS, memory=tmp_path, token=TOKEN).urls.grpc
    with pytest.raises(MindsetError, match="no token"), RemoteMemory(url):
        pytest.fail("it let us in")
    monkeypatch.setenv("MINDSET_TOKEN", TOKEN)
    with RemoteMemory(url) as memory:
        assert memory.store.count() == 16
