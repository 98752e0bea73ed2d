from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from distill.small import digest, first_bank, make_mixture, make_settings, make_stage, make_teacher, weights

from mindset.distill.loop import run_stage
from mindset.distill.losses import head_kl
from mindset.distill.stages import EndToEndStage, HealStage, LocalStage, Stage
from mindset.distill.training import silent
from mindset.graft.associative import AssociativeBank
from mindset.graft.bank import Bank
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan

K2 = ConversionPlan(k=2, skip="affine")
K6 = ConversionPlan(k=6, skip="affine")
WHOLE = ConversionPlan()


def fit(
    folder: Path,
    kind: type[Stage],
    student: Any,
    teacher: Any,
    steps: int = 40,
    progress: Any = None,
    **changes: Any,
) -> list[float]:
    """Train one stage; every step's loss."""
    losses = []

    def heard(_stage: str, _done: int, _total: int, **figures: float) -> None:
        losses.append(figures["loss"])
        if progress is not None:
            progress()

    settings = make_settings(**{"anneal": 0.0, **changes})
    stage = make_stage(kind, student, teacher, settings, steps)
    run_stage(stage, folder, resume=False, progress=heard)
    return losses


@torch.no_grad()
def kl(student: Any, teacher: Any) -> float:
    """Nats per token from the teacher's predictions on unseen text."""
    tokens = make_mixture(seed=77, batch=16).next_batch()
    p, q = (model(tokens).logits.double().log_softmax(-1) for model in (teacher, student))
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_the_local_stage_brings_every_bank_and_the_whole_model_nearer_to_the_teacher(tmp_path: Path) -> None:
    teacher = make_teacher()
    student, untouched = build_student(teacher, K2), digest(teacher)
    before = kl(student, teacher)
    losses = fit(tmp_path, LocalStage, student, teacher, steps=60, lr=1e-2)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert kl(student, teacher) < 0.8 * before
    assert digest(teacher) == untouched


def test_the_end_to_end_stage_brings_the_whole_model_nearer_to_the_teacher(tmp_path: Path) -> None:
    teacher = make_teacher()
    student, untouched = build_student(teacher, K2), digest(teacher)
    before = kl(student, teacher)
    losses = fit(tmp_path, EndToEndStage, student, teacher, steps=60, lr=1e-2)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert kl(student, teacher) < 0.8 * before
    assert digest(teacher) == untouched


def test_the_end_to_end_loss_is_the_kl_of_the_two_models() -> None:
    teacher = make_teacher().double()
    student = build_student(teacher, K6)
    stage = make_stage(EndToEndStage, student, teacher, make_settings())
    tokens = make_mixture().next_batch()
    p, q = (model(tokens).logits.log_softmax(-1) for model in (teacher, student))
    wanted = (p.exp() * (p - q)).sum(-1).mean()
    got = stage.loss(tokens)
    torch.testing.assert_close(got, wanted.detach(), rtol=1e-9, atol=1e-12, check_dtype=True)
    parameter = first_bank(student).shards["base"].value
    ours, theirs = (torch.autograd.grad(loss, parameter)[0] for loss in (got, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_the_local_loss_is_the_mean_fvu_times_the_root_of_the_number_of_layers() -> None:
    teacher = make_teacher().double()
    student = build_student(teacher, K6)
    stage = make_stage(LocalStage, student, teacher, make_settings())
    loss = stage.loss(make_mixture().next_batch())
    fvus = [float(stage.figures[f"fvu/{layer:02d}"]) for layer in (0, 1)]
    assert float(loss.detach()) == pytest.approx(sum(fvus) / 2 * 2**0.5)


@pytest.mark.parametrize("kind", [LocalStage, EndToEndStage])
def test_the_teacher_through_a_whole_mirror_has_no_loss(kind: type[Stage]) -> None:
    teacher = make_teacher().double()
    student = build_student(teacher, WHOLE)
    stage = make_stage(kind, student, teacher, make_settings(WHOLE))
    assert stage.loss(make_mixture().next_batch()).detach().abs() < 1e-12
    assert kl(student, teacher) < 1e-12


def test_the_teacher_itself_has_no_kl_under_either_path() -> None:
    teacher = make_teacher()
    states = torch.randn(5, 32)
    for frozen in (True, False):
        head = teacher.lm_head.requires_grad_(not frozen)
        assert head_kl(states, states, head, head).detach().abs() < 1e-6


def test_shuffled_targets_do_not_help(tmp_path: Path) -> None:
    teacher = make_teacher()
    after = {}
    for shuffled in (False, True):
        student = build_student(teacher, K6)
        before = kl(student, teacher)
        losses = fit(tmp_path / str(shuffled), LocalStage, student, teacher, 60, shuffled_targets=shuffled)
        after[shuffled] = kl(student, teacher)
    assert after[False] < before < after[True]
    assert losses[-1] > 2**0.5 * 0.9  # no better than the mean, of two layers


PARTS = {
    "memory": (".mlp.",),
    "attention": (".mlp.", "self_attn", "norm"),
    "all": (".mlp.", "self_attn", "norm", "embed_tokens", "lm_head"),
}


@pytest.mark.parametrize("trained", PARTS)
def test_what_is_trained_is_what_changes(tmp_path: Path, trained: Any) -> None:
    teacher = make_teacher(tied=False)
    student = build_student(teacher, K6)
    before = weights(student)
    fit(tmp_path, EndToEndStage, student, teacher, steps=2, trained=trained)
    after = weights(student)
    changed = {name for name in after if after[name] != before[name]}
    parameters = {name for name, _ in student.named_parameters()}
    wanted = {name for name in parameters if any(part in name for part in PARTS[trained])}
    buffers = {name for name, _ in student.named_buffers() if name.endswith("modulator_rms")}
    assert changed == wanted | buffers


@pytest.mark.parametrize("kind", [LocalStage, EndToEndStage, HealStage])
def test_a_stage_leaves_the_student_as_an_evaluation_wants_it(tmp_path: Path, kind: type[Stage]) -> None:
    teacher = make_teacher()
    student = build_student(teacher, K6)
    ks = []
    fit(
        tmp_path, kind, student, teacher, 10, anneal=0.8, local_share=0.0,
        progress=lambda: ks.append(first_bank(student).k),
    )  # fmt: skip
    assert ks[0] == (6 if kind is HealStage else 48)
    assert ks == sorted(ks, reverse=True)
    assert ks[-1] == 6
    for bank in banks(student).values():
        assert bank.k == 6
        assert bank.counter is None
    assert not any(module.training for module in student.modules())


def test_a_stage_that_is_broken_off_leaves_it_so_too(tmp_path: Path) -> None:
    teacher = make_teacher()
    student = build_student(teacher, K6)

    def break_off() -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fit(tmp_path, LocalStage, student, teacher, 10, anneal=1.0, progress=break_off)
    assert all(bank.k == 6 and bank.counter is None for bank in banks(student).values())
    assert not any(module.training for module in student.modules())


def test_k_never_exceeds_the_candidates(tmp_path: Path) -> None:
    plan, teacher = ConversionPlan(k=4, propose="score", candidates=12), make_teacher()
    student = build_student(teacher, plan)
    ks: list[int] = []
    fit(
        tmp_path, LocalStage, student, teacher, 8, plan=plan, anneal=1.0,
        progress=lambda: ks.append(first_bank(student).k),
    )  # fmt: skip
    assert ks[0] == 12
    assert min(ks) >= 4


def test_only_banks_train_in_training_mode(tmp_path: Path) -> None:
    teacher = make_teacher()
    student = build_student(teacher, K6)
    modes: list[set[bool]] = []

    def look() -> None:
        inside = {id(module) for bank in banks(student).values() for module in bank.modules()}
        modes.append({module.training for module in student.modules() if id(module) not in inside})
        assert all(bank.training for bank in banks(student).values())

    fit(tmp_path, EndToEndStage, student, teacher, 2, progress=look)
    assert modes == [{False}, {False}]


@pytest.mark.parametrize("gradient", ["straight-through", "scores", "frozen"])
def test_an_associative_bank_is_written_in_training_only(tmp_path: Path, gradient: Any) -> None:
    plan, teacher = ConversionPlan(bank="associative", slots=24, k=4, gradient=gradient), make_teacher()
    student = build_student(teacher, plan)

    def sizes() -> list[int]:
        return [int(bank.size.sum()) for bank in banks(student).values() if isinstance(bank, AssociativeBank)]

    kl(student, teacher)
    assert sizes() == [0, 0]
    losses = fit(tmp_path, LocalStage, student, teacher, 40, plan=plan)
    assert losses[-1] < losses[0]
    assert min(sizes()) > 0
    held = sizes(), digest(student)
    kl(student, teacher)
    assert (sizes(), digest(student)) == held


def test_dead_slots_are_revived_while_training(tmp_path: Path) -> None:
    plan, teacher = ConversionPlan(bank="featural", slots=64, k=4), make_teacher()

    def trained(every: int) -> tuple[float, int]:
        student = build_student(teacher, plan)
        with torch.no_grad():
            for bank in banks(student).values():  # nothing reads these, and nothing ever would
                bank.shards["base"].key_bias[:, 8:] = -1e3
        fit(tmp_path / str(every), LocalStage, student, teacher, 40, plan=plan, revive_every=every)
        alive = sum(int((bank.shards["base"].key_bias > -500).sum()) for bank in banks(student).values())
        return kl(student, teacher), alive

    without, dead = trained(0)
    revived, alive = trained(10)
    assert (dead, alive) == (16, 128)
    assert revived < without


@pytest.mark.parametrize("kind", [LocalStage, EndToEndStage])
@pytest.mark.parametrize("bank", ["mirror", "featural", "associative"])
def test_a_checkpoint_holds_the_banks_and_what_is_trained_and_no_teacher(
    kind: type[Stage], bank: Any
) -> None:
    plan, teacher = ConversionPlan(bank=bank, slots=8, k=4, skip="lowrank:2"), make_teacher()
    student = build_student(teacher, plan)
    stage = make_stage(kind, student, teacher, make_settings(plan))
    names = set(stage.state_dict())
    wanted = {f"student.{name}" for name in student.state_dict() if ".mlp." in name}
    assert names == wanted
    assert not [name for name, _ in stage.named_parameters() if "teacher" in name]


def test_the_stage_base_is_abstract() -> None:
    teacher = make_teacher()
    stage = make_stage(Stage, build_student(teacher, K6), teacher, make_settings())
    assert isinstance(first_bank(stage.student), Bank)
    with pytest.raises(NotImplementedError):
        stage.loss(make_mixture().next_batch())


def test_healing_learns_the_text(tmp_path: Path) -> None:
    teacher = make_teacher()
    student, untouched = build_student(teacher, K6), digest(teacher)
    losses = fit(tmp_path, HealStage, student, teacher, steps=40)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert digest(teacher) == untouched


def test_progress_may_be_silent(tmp_path: Path) -> None:
    teacher = make_teacher()
    stage = make_stage(LocalStage, build_student(teacher, K6), teacher, make_settings(), steps=1)
    run_stage(stage, tmp_path, resume=False, progress=silent)
    assert stage.clock.done == 1
