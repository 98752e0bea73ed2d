from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from distill.small import digest, make_mixture, make_teacher, weights
from torch import Tensor

from mindset.distill.fit_skip import fit_skips
from mindset.distill.losses import scaled_error
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.probe.tap import tap_blocks


def passes(
    teacher: Any, tokens: Tensor, layers: tuple[int, ...] = (0, 1)
) -> dict[int, tuple[Tensor, Tensor]]:
    with torch.no_grad(), tap_blocks(teacher, layers) as caught:
        teacher(tokens, use_cache=False)
    return {layer: both.both() for layer, both in caught.items()}


def batches(n: int, seed: int = 0) -> list[Tensor]:
    data = make_mixture(seed)
    return [data.next_batch() for _ in range(n)]


@torch.no_grad()
def errors(student: Any, teacher: Any, tokens: Tensor) -> list[float]:
    found = passes(teacher, tokens)
    return [
        float(scaled_error(bank(found[layer][0]), found[layer][1])) for layer, bank in banks(student).items()
    ]


def test_a_fitted_skip_is_numpys_ridge_regression() -> None:
    teacher = make_teacher().double()
    student = build_student(teacher, ConversionPlan(k=6, skip="affine"))
    tokens = batches(4)
    found = passes(teacher, torch.cat(tokens))
    wanted = {}
    for layer, bank in banks(student).items():
        x, y = (t.numpy() for t in found[layer])
        missing = y - bank(found[layer][0]).detach().numpy()
        centred, target = x - x.mean(0), missing - missing.mean(0)
        # A ridge is least squares with rows of its own.
        penalty = 1e-3 * np.square(centred).mean() * len(x)
        rows = np.concatenate([centred, np.sqrt(penalty) * np.eye(x.shape[1])])
        solved = np.linalg.lstsq(rows, np.concatenate([target, np.zeros_like(rows[len(x) :])]), rcond=None)[0]
        wanted[layer] = solved.T, missing.mean(0) - solved.T @ x.mean(0)
    fit_skips(student, teacher, tokens)
    for layer, bank in banks(student).items():
        np.testing.assert_allclose(bank.skip.weight.detach().numpy(), wanted[layer][0], rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(bank.skip.bias.detach().numpy(), wanted[layer][1], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("skip", ["affine", "lowrank:8"])
@pytest.mark.parametrize("bank", ["mirror", "featural", "associative"])
def test_a_fitted_skip_explains_more_of_unseen_text(bank: Any, skip: str) -> None:
    teacher = make_teacher()
    student = build_student(teacher, ConversionPlan(bank=bank, k=6, skip=skip))
    tokens = batches(1, seed=5)[0]
    before = errors(student, teacher, tokens)
    fit_skips(student, teacher, batches(6))
    after = errors(student, teacher, tokens)
    assert all(b < 0.95 * a for a, b in zip(before, after, strict=True)), (before, after)


def test_fitting_again_changes_next_to_nothing() -> None:
    teacher = make_teacher().double()
    student = build_student(teacher, ConversionPlan(k=6, skip="affine"))
    tokens = batches(4)
    fit_skips(student, teacher, tokens)
    first = errors(student, teacher, torch.cat(tokens))
    fit_skips(student, teacher, tokens)
    assert errors(student, teacher, torch.cat(tokens)) == pytest.approx(first, rel=1e-3)


def test_only_skips_change_and_the_teacher_does_not() -> None:
    teacher = make_teacher()
    student = build_student(teacher, ConversionPlan(k=6, skip="affine"))
    before, untouched = weights(student), digest(teacher)
    fit_skips(student, teacher, batches(1))
    changed = {name for name, value in weights(student).items() if before[name] != value}
    assert changed == {f"model.layers.{i}.mlp.skip.{name}" for i in (0, 1) for name in ("weight", "bias")}
    assert digest(teacher) == untouched


def test_banks_without_a_skip_need_no_fit() -> None:
    teacher = make_teacher()
    student = build_student(teacher, ConversionPlan(k=6))
    before = digest(student)
    fit_skips(student, teacher, [])
    assert digest(student) == before
