from __future__ import annotations

import pytest
import torch

from mindset.errors import UsageError
from mindset.graft.runtime import Runtime, multiplies_bfloat16


def test_threads_hold_for_the_block_only() -> None:
    before = torch.get_num_threads()
    with Runtime(threads=2).active():
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
    with Runtime().active():
        assert torch.get_num_threads() == before


def test_an_error_in_the_block_gives_the_threads_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError):
        fail_within(Runtime(threads=2))
    assert torch.get_num_threads() == before


def fail_within(runtime: Runtime) -> None:
    with runtime.active():
        raise KeyError


def test_the_dtype_is_torchs_own() -> None:
    assert Runtime(dtype="bfloat16").torch_dtype is torch.bfloat16
    assert Runtime().torch_dtype is None


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="-1 threads"):
        Runtime(threads=-1)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"bf16": True}, True),
        ({"avx2": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert multiplies_bfloat16("cpu") is expected
    assert multiplies_bfloat16("mps") is False


def test_an_older_torch_that_tells_nothing_is_taken_to_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert multiplies_bfloat16("cpu") is False
