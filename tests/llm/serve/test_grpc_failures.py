from __future__ import annotations

import pytest

from mindset import errors
from mindset.errors import CallError, MindsetError, OverloadedError

pytest.importorskip("grpc", reason="the extra `serve` is missing")
import grpc

from mindset.llm.serve.desk import DrainingError
from mindset.llm.serve.errors import RefusedError, told
from mindset.llm.serve.grpc_failures import as_error, as_status


class Failed(grpc.RpcError):  # type: ignore[misc]
    """A failed call, as gRPC's client has it."""

    def __init__(
        self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__()
        self._told = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._told[0]

    def details(self) -> str:
        return self._told[1]

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._told[2]


EVERY = [getattr(errors, name) for name in errors.__all__]


def made(kind: type[MindsetError]) -> MindsetError:
    if kind is OverloadedError:
        return OverloadedError("a sentence", retry_after=2.5)
    if issubclass(kind, CallError):
        return kind("a sentence", retry=True, retry_after=2.5)
    return kind("a sentence")


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_it_was(kind: type[MindsetError]) -> None:
    error = made(kind)
    back = as_error(Failed(*as_status(error)), "grpc://x:1")
    assert type(back) is kind
    assert str(back) == "a sentence"
    if isinstance(error, CallError):
        assert isinstance(back, CallError)
        assert (back.retry, back.retry_after) == (True, 2.5)


def test_whether_to_try_again_comes_back() -> None:
    for retry, after in ((False, None), (True, None), (True, 3.0)):
        back = as_error(Failed(*as_status(CallError("x", retry=retry, retry_after=after))), "u")
        assert isinstance(back, CallError)
        assert (back.retry, back.retry_after) == (retry, after)


def test_our_own_kinds_are_told_as_the_nearest_that_is_known() -> None:
    assert type(as_error(Failed(*as_status(RefusedError(413, "x"))), "u")) is errors.UsageError
    assert type(as_error(Failed(*as_status(DrainingError())), "u")) is CallError
    code, sentence, _ = as_status(KeyError("secret"))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in sentence


@pytest.mark.parametrize(
    ("code", "details", "kind", "words"),
    [
        ("UNAVAILABLE", "connect failed", CallError, "nobody answers there"),
        ("DEADLINE_EXCEEDED", "", errors.CallTimeoutError, "no answer in time"),
        ("RESOURCE_EXHAUSTED", "Received message larger than max", errors.UsageError, "too large"),
        ("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!", OverloadedError, "too many"),
        ("UNIMPLEMENTED", "", CallError, "serves no language model"),
        ("CANCELLED", "", CallError, "broken off"),
        ("DATA_LOSS", "hm", CallError, "not understood"),
    ],
)
def test_what_grpc_says_itself(code: str, details: str, kind: type[MindsetError], words: str) -> None:
    back = as_error(Failed(getattr(grpc.StatusCode, code), details), "grpc://x:1")
    assert type(back) is kind
    assert words in str(back)
    assert str(back).startswith("grpc://x:1")


def test_an_unknown_name_is_not_looked_up_elsewhere() -> None:
    back = as_error(Failed(grpc.StatusCode.INTERNAL, "x", (("mindset-error", "__builtins__"),)), "u")
    assert type(back) is CallError


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_of_http(kind: type[MindsetError]) -> None:
    said = told(made(kind))
    assert said.message == "a sentence"
    assert said.expected
    assert set(said.body["error"]) == {"message", "type", "param", "code"}
    assert (said.headers.get("retry-after") == "3") is issubclass(kind, CallError)
