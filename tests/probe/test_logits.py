from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from mindset.errors import UsageError
from mindset.probe import logits as logits_module
from mindset.probe.logits import evaluation_mode, iter_logits
from mindset.probe.windows import WindowBatch, Windows


def plain(model: PreTrainedModel, batch: WindowBatch) -> torch.Tensor:
    with torch.no_grad():
        full = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return torch.cat([row[:-1][scored[1:]] for row, scored in zip(full, batch.scored, strict=True)])


@pytest.fixture
def batch(windows: Windows) -> WindowBatch:
    (batch,) = windows.batches()
    assert not batch.attention_mask.all()
    return batch


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per forward pass: the positions that came back."""
    seen: list[int] = []
    run = logits_module._run

    def counted(model: PreTrainedModel, batch: WindowBatch) -> torch.Tensor:
        result = run(model, batch)
        seen.append(result.shape[1])
        return result

    monkeypatch.setattr(logits_module, "_run", counted)
    return seen


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_pieces_equal_the_models_own_logits(
    make_model: Callable[..., PreTrainedModel], family: str, batch: WindowBatch, rows: int, runs: list[int]
) -> None:
    model = make_model(family, dtype=torch.float64)
    pieces = list(iter_logits(model, batch, rows))
    assert torch.is_grad_enabled()
    assert not any(piece.requires_grad for piece in pieces)
    assert max(len(piece) for piece in pieces) <= rows
    assert torch.allclose(torch.cat(pieces), plain(model, batch), rtol=0, atol=1e-12)
    assert runs == [1], "one pass, with one position through the output layer"


def test_pieces_equal_the_models_own_logits_in_f32(
    make_model: Callable[..., PreTrainedModel], family: str, batch: WindowBatch
) -> None:
    model = make_model(family)
    pieces = torch.cat(list(iter_logits(model, batch, 8)))
    assert pieces.dtype == torch.float32
    assert torch.allclose(pieces, plain(model, batch), rtol=1e-5, atol=1e-5)


def test_half_precision_logits_are_widened(
    make_model: Callable[..., PreTrainedModel], batch: WindowBatch
) -> None:
    pieces = list(iter_logits(make_model("llama", dtype=torch.bfloat16), batch))
    assert all(piece.dtype == torch.float32 for piece in pieces)


def test_logits_bent_in_an_unknown_way_fall_back_to_the_models_own(
    make_model: Callable[..., PreTrainedModel],
    batch: WindowBatch,
    runs: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model("llama")
    forward = type(model).forward

    def bent(self: PreTrainedModel, *args: object, **kwargs: object) -> object:
        output = forward(self, *args, **kwargs)
        output.logits = output.logits * 1.5
        return output

    monkeypatch.setattr(type(model), "forward", bent)
    assert torch.equal(torch.cat(list(iter_logits(model, batch, 8))), plain(model, batch))
    assert runs == [1, 16]


def test_a_model_without_a_known_output_layer_is_run_with_full_logits(
    make_model: Callable[..., PreTrainedModel],
    batch: WindowBatch,
    runs: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model("llama")
    monkeypatch.setattr(type(model), "get_output_embeddings", lambda self: None)
    assert torch.equal(torch.cat(list(iter_logits(model, batch, 8))), plain(model, batch))
    assert runs == [16]


def test_the_model_keeps_no_hook_even_where_it_fails(
    make_model: Callable[..., PreTrainedModel], batch: WindowBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("llama")

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no")

    list(iter_logits(model, batch))
    monkeypatch.setattr(model.model, "forward", fail)
    with pytest.raises(RuntimeError):
        list(iter_logits(model, batch))
    assert not model.lm_head._forward_pre_hooks


def test_evaluation_mode_gives_back_each_modules_mode(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model("gpt2").train()
    model.transformer.h[1].eval()
    before = [module.training for module in model.modules()]
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def test_no_rows_at_a_time_is_refused(make_model: Callable[..., PreTrainedModel], batch: WindowBatch) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        list(iter_logits(make_model("llama"), batch, 0))
