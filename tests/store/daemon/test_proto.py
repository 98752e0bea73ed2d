"""The committed messages are those of `memory.proto`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mindset

SOURCES = Path(mindset.__file__).parent.parent
PROTO = "mindset/store/daemon/memory.proto"


def test_generating_them_again_gives_the_same(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="protoc is missing: pip install grpcio-tools")
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    from mindset.store.daemon import memory_pb2

    out = tmp_path / "descriptor"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", SOURCES, f"--descriptor_set_out={out}", PROTO]
    done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = FileDescriptorSet.FromString(out.read_bytes()).file
    committed = type(made).FromString(memory_pb2.DESCRIPTOR.serialized_pb)
    assert committed.name == made.name
    assert _plain(committed) == _plain(made), "run `make proto`"


def _plain(file: object) -> str:
    """Without the names in JSON, which protoc writes into a set of descriptors only."""
    return "\n".join(line for line in str(file).splitlines() if "json_name" not in line)


def test_every_call_has_a_stub_and_a_servicer() -> None:
    pytest.importorskip("grpc", reason="the extra `serve` (grpcio) is missing")
    from mindset.store.daemon import memory_pb2, memory_pb2_grpc

    names = {method.name for method in memory_pb2.DESCRIPTOR.services_by_name["Memory"].methods}
    assert names == {name for name in vars(memory_pb2_grpc.MemoryServicer) if not name.startswith("_")}
