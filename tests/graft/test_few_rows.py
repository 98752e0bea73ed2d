"""The compiled product of a few rows against torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from graft.tiny import tiny_model, tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mindset.graft import few_rows
from mindset.graft.convert import build_student
from mindset.graft.few_rows import FewRows, product
from mindset.graft.plan import ConversionPlan

pytest.importorskip("numba", reason="the extra `fast` is not installed")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each compiled product had."""
    seen: list[int] = []
    real = few_rows._multiply
    monkeypatch.setattr(few_rows, "_multiply", lambda *given: seen.append(given[3]) or real(*given))
    return seen


@given(
    rows=st.integers(1, 40),
    n=st.integers(1, 70),
    d=st.integers(1, 90),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    bias=st.booleans(),
    several=st.booleans(),
)
@settings(max_examples=80, deadline=None)
@torch.no_grad()
def test_it_is_the_product(rows: int, n: int, d: int, dtype: torch.dtype, bias: bool, several: bool) -> None:
    generator = torch.Generator().manual_seed(rows * n + d)
    x = torch.randn(rows, d, generator=generator, dtype=dtype)
    weight = torch.randn(n, d, generator=generator, dtype=dtype)
    added = torch.randn(n, generator=generator, dtype=dtype) if bias else None
    given = x.view(1, rows, d) if several else x
    found, wanted = product(given, weight, added), F.linear(given, weight, added)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 3])
@torch.no_grad()
def test_a_large_one_is_shared_by_torch_s_threads(threads: int, asked: list[int]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, weight = torch.randn(5, 301), torch.randn(1003, 301)
        torch.testing.assert_close(product(x, weight), F.linear(x, weight), rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(before)
    assert asked == [8]


@torch.no_grad()
def test_what_is_not_finite_stays_so() -> None:
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    x[0, 1], weight[2, 0] = torch.nan, torch.inf
    found = product(x, weight)
    assert bool(found[0].isnan().all())
    assert found[1].tolist() == [3, 3, torch.inf, 3]


def test_torch_does_what_the_loop_does_not_take(asked: list[int]) -> None:
    x, weight = torch.randn(4, 6), torch.randn(5, 6)
    wide = torch.randn(6, 5).T
    product(x, weight.requires_grad_()).sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        product(x[:1], weight)
        product(torch.randn(few_rows.MOST + 1, 6), weight)
        product(x.bfloat16(), weight.bfloat16())
        torch.testing.assert_close(product(x, wide), F.linear(x, wide))
        assert asked == []
        assert product(x.T.contiguous().T, weight).shape == (4, 5)
    assert asked == [4]


@torch.no_grad()
def test_a_model_multiplies_by_it_and_is_left_as_it_was(asked: list[int]) -> None:
    model = build_student(tiny_model("llama"), ConversionPlan(k=6))
    ids = tokens(rows=3, length=1)
    wanted = model(ids).logits
    few = FewRows(model)
    torch.testing.assert_close(model(ids).logits, wanted, rtol=1e-4, atol=1e-4)
    assert asked
    assert torch.equal(model(ids[:1]).logits, copy.deepcopy(model)(ids[:1]).logits)
    second = FewRows(model)
    second.close()
    few.active = False
    assert torch.equal(model(ids).logits, wanted)
    few.close()
    assert not any("forward" in vars(module) for module in model.modules() if isinstance(module, nn.Linear))
    asked.clear()
    assert torch.equal(model(ids).logits, wanted)
    assert asked == []
