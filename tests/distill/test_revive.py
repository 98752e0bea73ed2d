from __future__ import annotations

from typing import Any

import pytest
import torch
from distill.small import digest, make_mixture, make_teacher, weights
from torch import Tensor

from mindset.distill.losses import scaled_error
from mindset.distill.revive import revive
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.probe.tap import tap_blocks

FEATURAL = ConversionPlan(bank="featural", slots=64, heads=2, k=4)
PLANS = {
    "gated mirror": ConversionPlan(k=6, slots=40),
    "ungated mirror": ConversionPlan(k=6, slots=40, weight="relu"),
    "relu": FEATURAL,
    "distance": ConversionPlan(bank="featural", slots=64, heads=2, k=4, weight="distance"),
    "softmax": ConversionPlan(bank="featural", slots=64, heads=1, k=4, weight="softmax"),
}


@torch.no_grad()
def count(student: Any, teacher: Any, tokens: Tensor) -> tuple[dict[int, Tensor], dict[int, float]]:
    """Reads of every slot, and every bank's fvu, on the teacher's activations."""
    held = banks(student)
    with tap_blocks(teacher, tuple(held)) as passes:
        teacher(tokens, use_cache=False)
    fvu = {}
    for layer, bank in held.items():
        bank.counter = torch.zeros(bank.n_heads * bank.n_slots, dtype=torch.long)
        x, y = passes[layer].both()
        fvu[layer] = float(scaled_error(bank(x), y))
    return {layer: bank.counter for layer, bank in held.items()}, fvu


@pytest.fixture
def teacher() -> Any:
    return make_teacher()


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_dead_slots_are_used_afterwards_and_the_error_falls(plan: ConversionPlan, teacher: Any) -> None:
    student, tokens = build_student(teacher, plan), make_mixture().next_batch()
    with torch.no_grad():
        for bank in banks(student).values():  # so far from everything that nothing reads them
            rows = bank.shards["new" if plan.bank == "mirror" else "base"]
            rows.value[..., 10:, :] = 0
            if plan.weight == "softmax":
                rows.key_bias[..., 10:] = -1e4
    counters, before = count(student, teacher, tokens)
    dead = {layer: counter == 0 for layer, counter in counters.items()}
    if plan.bank == "mirror":
        for mask in dead.values():
            mask[:48] = False
    untouched = digest(teacher)
    moved = revive(student, tokens, teacher)
    assert moved == sum(int(mask.sum()) for mask in dead.values()) > 40
    assert digest(teacher) == untouched
    counters, after = count(student, teacher, tokens)
    used = sum(int((counters[layer][mask] > 0).sum()) for layer, mask in dead.items())
    assert used > 0.25 * moved
    assert all(after[layer] <= before[layer] for layer in dead)
    assert sum(after.values()) < 0.97 * sum(before.values())


def test_slots_in_use_and_the_mirrors_own_stay_as_they_are(teacher: Any) -> None:
    student, tokens = build_student(teacher, PLANS["gated mirror"]), make_mixture().next_batch()
    bank = banks(student)[0]
    with torch.no_grad():
        bank.shards["new"].value[:9] *= 40
    counters, _ = count(student, teacher, tokens)
    used = counters[0][48:] > 0
    assert 0 < int(used.sum()) < 40
    before, new = weights(student), bank.shards["new"].key.detach().clone()
    revive(student, tokens, teacher)
    changed = {name for name, value in weights(student).items() if before[name] != value}
    assert changed == {
        f"model.layers.{i}.mlp.shards.new.{field}" for i in (0, 1) for field in ("key", "modulator", "value")
    }
    after = bank.shards["new"].key.detach()
    assert torch.equal(after[used], new[used])
    assert not (after[~used] == new[~used]).all(dim=-1).any()


def test_counting_and_training_go_on_as_before(teacher: Any) -> None:
    student, tokens = build_student(teacher, FEATURAL), make_mixture().next_batch()
    counters, _ = count(student, teacher, tokens)
    student.train()
    before = {layer: counter.clone() for layer, counter in counters.items()}
    revive(student, tokens, teacher)
    for layer, bank in banks(student).items():
        assert bank.training
        assert bank.counter is counters[layer]
        assert torch.equal(bank.counter, before[layer])


def test_more_dead_slots_than_tokens_wait_for_the_next_time(teacher: Any) -> None:
    student = build_student(teacher, FEATURAL)
    for bank in banks(student).values():
        bank.counter = torch.zeros(bank.n_heads * bank.n_slots, dtype=torch.long)
    assert revive(student, make_mixture().next_batch()[:1], teacher) == 2 * 16


@pytest.mark.parametrize(
    "plan",
    [ConversionPlan(k=6), ConversionPlan(bank="associative", slots=8, k=4)],
    ids=["mirror without new slots", "associative"],
)
def test_banks_without_slots_to_move_are_left_alone(plan: ConversionPlan, teacher: Any) -> None:
    student, tokens = build_student(teacher, plan), make_mixture().next_batch()
    count(student, teacher, tokens)
    before = digest(student)
    assert revive(student, tokens, teacher) == 0
    assert digest(student) == before


def test_nothing_dead_nothing_moved(teacher: Any) -> None:
    student, tokens = build_student(teacher, FEATURAL), make_mixture().next_batch()
    for bank in banks(student).values():
        bank.counter = torch.ones(bank.n_heads * bank.n_slots, dtype=torch.long)
    before = digest(student)
    assert revive(student, tokens, teacher) == 0
    assert digest(student) == before
