"""The committed messages are those of `llm.proto`, and no number that was once given means something else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mindset

pytest.importorskip("grpc", reason="the extra `serve` is missing")
from mindset.llm.grpc_client import PROTOCOL as ASKED
from mindset.llm.serve import llm_pb2, llm_pb2_grpc
from mindset.llm.serve.grpc_server import PROTOCOL as ANSWERED

SOURCES = Path(mindset.__file__).parent.parent
PROTO = "mindset/llm/serve/llm.proto"
NUMBERS = SOURCES / "mindset/llm/serve/llm.numbers.json"


def test_generating_them_again_gives_the_same(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="protoc is missing: pip install grpcio-tools")
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    out = tmp_path / "descriptor"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", SOURCES, f"--descriptor_set_out={out}", PROTO]
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = FileDescriptorSet.FromString(out.read_bytes()).file
    committed = type(made).FromString(llm_pb2.DESCRIPTOR.serialized_pb)
    assert _plain(committed) == _plain(made), "run `make proto`"


def _plain(file: object) -> str:
    """Without the names in JSON, which protoc writes into a set of descriptors only."""
    return "\n".join(line for line in str(file).splitlines() if "json_name" not in line)


def test_every_call_has_a_stub_and_a_servicer() -> None:
    names = {method.name for method in llm_pb2.DESCRIPTOR.services_by_name["LanguageModel"].methods}
    assert names == {name for name in vars(llm_pb2_grpc.LanguageModelServicer) if not name.startswith("_")}
    assert ASKED == ANSWERED


def test_numbers_once_given_are_kept() -> None:
    """A field may be added, with its number in the file beside the proto; none may change or be given again."""
    pinned, now = json.loads(NUMBERS.read_text(encoding="utf-8")), numbers()
    assert now == pinned, (
        "add what is new to llm.numbers.json; a number that is there is never used for something else"
    )


def numbers() -> dict[str, Any]:
    """Every message's fields, and every method, as they are on the wire."""
    messages = {
        name: {field.name: [field.number, field.type, field.is_repeated] for field in message.fields}
        for name, message in sorted(llm_pb2.DESCRIPTOR.message_types_by_name.items())
    }
    methods = {
        method.name: [
            method.input_type.name,
            method.output_type.name,
            method.client_streaming,
            method.server_streaming,
        ]
        for method in llm_pb2.DESCRIPTOR.services_by_name["LanguageModel"].methods
    }
    return {"package": llm_pb2.DESCRIPTOR.package, "messages": messages, "methods": methods}
