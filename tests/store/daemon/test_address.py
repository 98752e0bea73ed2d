from __future__ import annotations

import os
from pathlib import Path

import pytest

from mindset.errors import UsageError
from mindset.store.daemon.address import default_socket, is_url, parse, port_address, socket_address


@pytest.mark.parametrize(
    ("url", "spelled", "target"),
    [
        ("unix:/a/b.sock", "unix:/a/b.sock", "unix:/a/b.sock"),
        ("unix:///a/b c%.sock", "unix:/a/b c%.sock", "unix:/a/b%20c%25.sock"),
        ("grpc://127.0.0.1:50051", "grpc://127.0.0.1:50051", "127.0.0.1:50051"),
        ("grpc://[::1]:1/", "grpc://[::1]:1", "[::1]:1"),
        ("grpc://localhost:65535", "grpc://localhost:65535", "localhost:65535"),
    ],
)
def test_urls(url: str, spelled: str, target: str) -> None:
    assert is_url(url)
    assert (parse(url).url, parse(url).target) == (spelled, target)


def test_a_relative_socket_is_made_absolute() -> None:
    assert parse("unix:x.sock").path == Path.cwd() / "x.sock"


@pytest.mark.parametrize(
    "url",
    [
        "unix:",
        "unix://",
        "grpc:x",
        "grpc://h",
        "grpc://h:0",
        "grpc://h:65536",
        "grpc://u@h:1",
        "http://h:1",
        "x",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="write unix:PATH or grpc://HOST:PORT"):
        parse(url)


def test_a_folder_is_no_url() -> None:
    assert not is_url("smol")
    assert not is_url("./unix:x")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", ""])  # noqa: S104  refused
def test_other_machines_are_refused(host: str) -> None:
    with pytest.raises(UsageError, match="other machines"):
        port_address(50051, host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_is_not(host: str) -> None:
    assert port_address(0, host).port == 0


def test_a_port_must_be_one() -> None:
    with pytest.raises(UsageError, match="port 65536"):
        port_address(65536)


def test_a_socket_lies_in_the_memory_or_where_its_path_is_short(tmp_path: Path) -> None:
    assert default_socket(Path("/m")) == Path("/m/memory/daemon.sock")
    deep = Path("/m") / ("x" * 100)
    short = default_socket(deep)
    assert short == default_socket(deep)
    assert short != default_socket(deep / "y")
    assert short.parent.name == f"mindset-{os.getuid()}"
    with pytest.raises(UsageError, match="may have 103 bytes"):
        socket_address(deep / "daemon.sock")
