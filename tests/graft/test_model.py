import copy
import hashlib

import pytest
import torch
from graft.tiny import CONFIGS, tiny_model, tokens
from torch import nn

from mindset.errors import BankSizeError, UsageError
from mindset.graft.convert import build_student
from mindset.graft.model import (
    MindsetModel,
    banks,
    dense_parameters,
    learning,
    memory_parameters,
    model_class,
    reading,
    without_memory,
)
from mindset.graft.plan import ConversionPlan
from mindset.graft.recording import record

KINDS = {
    "mirror": ConversionPlan(k=4),
    "mirror-new": ConversionPlan(k=4, slots=6, propose="proxy:3", candidates=8, skip="lowrank:2"),
    "featural": ConversionPlan("featural", slots=12, heads=2, k=3, skip="affine"),
    "associative": ConversionPlan("associative", slots=12, heads=2, k=3),
}


def digest(model: nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@pytest.fixture(params=KINDS)
def student(request):
    return build_student(tiny_model("llama"), KINDS[request.param])


# ---- grafting
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom"])
def test_the_teacher_is_left_as_it_was(family, kind):
    teacher = tiny_model(family)
    before, structure, config = digest(teacher), str(teacher), teacher.config.to_dict()
    student = build_student(teacher, KINDS[kind])
    assert (digest(teacher), str(teacher), teacher.config.to_dict()) == (before, structure, config)
    assert not isinstance(teacher, MindsetModel)
    storages = {t.untyped_storage().data_ptr() for t in (*teacher.parameters(), *teacher.buffers())}
    shared = [
        name
        for name, t in (*student.named_parameters(), *student.named_buffers())
        if t.untyped_storage().data_ptr() in storages
    ]
    assert shared == []
    assert student.config is not teacher.config


def test_training_a_student_leaves_the_teacher():
    teacher = tiny_model("opt")
    before = digest(teacher)
    student = build_student(teacher, ConversionPlan(k=4)).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    student(tokens(), labels=tokens()).loss.backward()
    optimizer.step()
    assert digest(teacher) == before
    assert digest(build_student(teacher, ConversionPlan())) != digest(student)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_student_is_an_ordinary_causal_lm_of_its_architecture(family):
    teacher = tiny_model(family)
    student = build_student(teacher, ConversionPlan(k=4))
    assert isinstance(student, type(teacher))
    assert isinstance(student, MindsetModel)
    assert type(student) is model_class(type(teacher))
    assert type(student).__name__ == f"Mindset{type(teacher).__name__}"
    assert student.get_input_embeddings().weight.shape == teacher.get_input_embeddings().weight.shape
    tied = teacher.get_input_embeddings().weight is teacher.get_output_embeddings().weight
    assert (student.get_input_embeddings().weight is student.get_output_embeddings().weight) == tied


def test_a_student_can_be_copied_moved_and_cast(student):
    ids = tokens()
    again = copy.deepcopy(student)
    torch.testing.assert_close(again(ids).logits, student(ids).logits)
    double = copy.deepcopy(student).double()
    assert {p.dtype for p in double.parameters()} == {torch.float64}
    assert double(ids).logits.dtype == torch.float64
    torch.testing.assert_close(double(ids).logits.float(), student(ids).logits, rtol=0, atol=1e-3)
    for dtype in (torch.bfloat16, torch.float16):
        low = copy.deepcopy(student).to(dtype)
        assert bool(low(ids).logits.isfinite().all())
        assert bool(low(ids[:1, :1]).logits.isfinite().all())
    if banks(student)[0].kind == "associative":
        return  # how much of it is filled is known from its numbers only
    meta = copy.deepcopy(student).to("meta")
    assert meta(ids.to("meta")).logits.shape == (2, 12, 40)


def test_a_student_is_named_by_the_plans_seed():
    teacher = tiny_model("llama")
    for plan in KINDS.values():
        assert digest(build_student(teacher, plan)) == digest(build_student(teacher, plan))


def test_a_student_is_not_converted_again(student):
    with pytest.raises(UsageError, match="has banks already"):
        build_student(student, ConversionPlan())


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_dense_or_memory(kind):
    teacher = tiny_model("llama")
    student = build_student(teacher, KINDS[kind])
    everything = sum(p.numel() for p in student.parameters())
    assert dense_parameters(student) + memory_parameters(student) == everything
    assert dense_parameters(teacher) == sum(p.numel() for p in teacher.parameters())
    if kind == "mirror":
        assert everything == dense_parameters(teacher)
        assert memory_parameters(student) == 2 * 3 * 24 * 16


# ---- views that end
def test_without_memory_mutes_and_restores(student):
    ids = tokens()
    whole = student(ids).logits
    with without_memory(student):
        muted = student(ids).logits
        with without_memory(student):
            pass
        torch.testing.assert_close(student(ids).logits, muted)
    assert not torch.equal(muted, whole)
    assert torch.equal(student(ids).logits, whole)
    with pytest.raises(KeyError), without_memory(student):
        raise KeyError
    assert torch.equal(student(ids).logits, whole)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom"])
def test_without_memory_is_the_teacher_with_its_values_gone(family):
    teacher = tiny_model(family)
    student = build_student(teacher, ConversionPlan())
    for layer in teacher.modules():
        for name in ("down_proj", "c_proj", "fc2", "dense_4h_to_h"):
            block = getattr(layer, name, None)
            if block is not None and block.weight.shape != (16, 16):
                with torch.no_grad():
                    block.weight.zero_()
    ids = tokens()
    with without_memory(student):
        torch.testing.assert_close(student(ids).logits, teacher(ids).logits)


def test_reading_sets_k_and_restores():
    student = build_student(tiny_model("llama"), ConversionPlan(k=4))
    banks(student)[1].set_k(7)
    with reading(student, 2):
        assert [bank.k for bank in banks(student).values()] == [2, 2]
        with reading(student, None):
            assert [bank.k for bank in banks(student).values()] == [None, None]
        assert [bank.k for bank in banks(student).values()] == [2, 2]
    assert [bank.k for bank in banks(student).values()] == [4, 7]
    with pytest.raises(KeyError), reading(student, 3):
        raise KeyError
    assert [bank.k for bank in banks(student).values()] == [4, 7]


def test_reading_restores_where_a_later_bank_refuses():
    student = build_student(tiny_model("llama"), ConversionPlan(k=4))
    small = build_student(tiny_model("llama"), KINDS["featural"])
    student.model.layers[1].mlp = banks(small)[1]
    with pytest.raises(BankSizeError), reading(student, 20):
        pytest.fail("must not be entered")
    assert [bank.k for bank in banks(student).values()] == [4, 3]


def test_recording_is_put_back_also_after_an_error(student):
    def boom(_read):
        raise KeyError

    kept = []
    with record(student, kept.append):
        with pytest.raises(KeyError), record(student, boom):
            student(tokens())
        student(tokens())
    assert [read.layer for read in kept] == [0, 1]
    student(tokens())
    assert len(kept) == 2
    assert all(bank.recorder is None for bank in banks(student).values())


def test_recording_changes_no_logits(student):
    for ids in (tokens(), tokens(1, 1)):
        plain = student(ids).logits
        with record(student, lambda _read: None):
            torch.testing.assert_close(student(ids).logits, plain, rtol=0, atol=1e-5)


def test_learning_touches_associative_banks_only(student):
    ids, before = tokens(), digest(student)
    with learning(student):
        student(ids)
    assert (digest(student) != before) == (banks(student)[0].kind == "associative")
