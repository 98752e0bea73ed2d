from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from mindset.graft.convert import build_student
from mindset.graft.families import FAMILIES
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.recording import Read, record
from mindset.probe.logits import iter_logits
from mindset.probe.tap import tap_blocks
from mindset.probe.use import fvu, slot_use, watch_fvu, watch_slots
from mindset.probe.windows import Windows

MakeModel = Callable[..., PreTrainedModel]
KNOWN = ["bloom", "falcon", "gemma2", "gpt2", "gpt_neox", "gptj", "llama", "opt", "phi"]


def run_each_window(model: PreTrainedModel, windows: Windows) -> None:
    """The slow way: one window at a time, nothing padded."""
    for start in range(0, len(windows.ids), windows.length):
        ids = torch.from_numpy(windows.ids[start : start + windows.length])[None]
        with torch.no_grad():
            model(input_ids=ids)


@pytest.mark.parametrize("known", KNOWN)
def test_a_mirror_read_whole_explains_its_block(make_model: MakeModel, known: str, windows: Windows) -> None:
    assert known in FAMILIES
    teacher = make_model(known, dtype=torch.float64)
    student = build_student(teacher, ConversionPlan())
    assert max(fvu(student, teacher, windows)) < 1e-20
    use = slot_use(student, windows)
    if known == "opt":  # ReLU: a slot that is never positive is never read
        assert all(0.5 < share <= 1 for share in use)
    else:
        assert use == [1.0, 1.0]


@pytest.mark.parametrize(
    "plan",
    [
        ConversionPlan(k=4),
        ConversionPlan(k=4, layers="1", skip="affine"),
        ConversionPlan(bank="featural", slots=20, heads=2, k=3),
    ],
)
def test_both_equal_the_naive_formulas(make_model: MakeModel, plan: ConversionPlan, windows: Windows) -> None:
    teacher = make_model("llama", dtype=torch.float64)
    student = build_student(teacher, plan)
    held = banks(student)
    caught: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {layer: [] for layer in held}
    reads: dict[int, list[torch.Tensor]] = {layer: [] for layer in held}

    def keep(read: Read) -> None:
        reads[read.layer].append(read.weights[1:] != 0)

    for start in range(0, len(windows.ids), windows.length):
        ids = torch.from_numpy(windows.ids[start : start + windows.length])[None]
        with torch.no_grad():
            with tap_blocks(teacher, tuple(held)) as passes:
                teacher(input_ids=ids)
            for layer in held:
                x, y = passes[layer].both()
                caught[layer].append((held[layer](x)[1:], y[1:]))
            with record(student, keep):
                student(input_ids=ids)
    naive_fvu, naive_use = [], []
    for layer in held:
        output, target = (torch.cat(pieces) for pieces in zip(*caught[layer], strict=True))
        variance = (target - target.mean(0)).square().sum()
        naive_fvu.append(float((output - target).square().sum() / variance))
        naive_use.append(float(torch.cat(reads[layer]).any(dim=0).double().mean()))
    for batch_tokens in (16, 48, 2048):
        assert fvu(student, teacher, windows, batch_tokens) == pytest.approx(naive_fvu, rel=1e-9)
        assert slot_use(student, windows, batch_tokens) == pytest.approx(naive_use, abs=1e-6)
    assert 0 < min(naive_use) < 1


def test_watching_changes_nothing_and_leaves_nothing_behind(make_model: MakeModel, windows: Windows) -> None:
    teacher = make_model("llama")
    student = build_student(teacher, ConversionPlan(k=4))
    batch = next(windows.batches(48))
    plain = [torch.cat(list(iter_logits(model, batch))) for model in (student, teacher)]
    with watch_slots(student), watch_fvu(student, teacher):
        watched = [torch.cat(list(iter_logits(model, batch))) for model in (student, teacher)]
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    modules = [module for model in (student, teacher) for module in model.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert all(bank.recorder is None for bank in banks(student).values())


def test_reads_on_the_teachers_activations_are_no_use(make_model: MakeModel, windows: Windows) -> None:
    teacher = make_model("llama")
    student = build_student(teacher, ConversionPlan(k=4))
    with watch_slots(student) as use, watch_fvu(student, teacher):
        run_each_window(teacher, windows)
    assert use.per_layer == [0.0, 0.0]


@pytest.mark.parametrize("known", ["llama", "bloom", "opt"])
def test_a_model_with_a_memory_beside_itself(make_model: MakeModel, known: str, windows: Windows) -> None:
    student = build_student(make_model(known), ConversionPlan(k=4))
    assert fvu(student, student, windows) == pytest.approx([0, 0], abs=1e-9)


def test_a_plain_model_has_nothing_to_measure(make_model: MakeModel, windows: Windows) -> None:
    teacher = make_model("llama")
    assert slot_use(teacher, windows) == []
    assert fvu(teacher, teacher, windows) == []
