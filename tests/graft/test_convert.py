import pytest
import torch
from graft.tiny import D_MLP, D_MODEL, N_LAYERS, save_teacher, tiny_model, tokens

from mindset.errors import BankSizeError, UsageError
from mindset.graft import folder
from mindset.graft.associative import AssociativeBank
from mindset.graft.bank import MirrorBank
from mindset.graft.convert import build_student, convert, lossless_difference
from mindset.graft.featural import FeaturalBank
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan


@pytest.fixture
def teacher(tmp_path):
    return save_teacher(tiny_model("llama"), tmp_path / "teacher")


# ---- the whole way
def test_a_lossless_conversion_says_so(teacher, tmp_path):
    out = tmp_path / "out"
    report = convert(str(teacher), out, ConversionPlan())
    assert report.lossless_difference is not None
    assert report.lossless_difference <= 1e-4
    assert report.layers == (0, 1)
    assert report.slots_per_layer == D_MLP
    assert report.memory_parameters == N_LAYERS * 3 * D_MLP * D_MODEL
    assert report.dense_parameters + report.memory_parameters == report.teacher_dense_parameters
    assert report.bytes_on_disk == sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    student = folder.load(out)
    assert student.source == str(teacher.resolve())
    torch.testing.assert_close(student(tokens()).logits, tiny_model("llama")(tokens()).logits)
    assert (out / "tokenizer.json").is_file()


def test_a_conversion_at_small_k_is_lossless_at_k_all(teacher, tmp_path):
    report = convert(str(teacher), tmp_path / "out", ConversionPlan(k=3, layers="0"))
    assert report.lossless_difference <= 1e-4
    assert report.k == 3
    assert banks(folder.load(tmp_path / "out"))[0].k == 3


@pytest.mark.parametrize(
    "plan",
    [
        ConversionPlan("featural", slots=10, heads=2, k=2),
        ConversionPlan("associative", slots=10, heads=2, k=2),
        ConversionPlan(slots=5, k=4),
        ConversionPlan(k=4, propose="score", candidates=8),
    ],
)
def test_what_is_not_lossless_claims_nothing(plan, teacher, tmp_path):
    report = convert(str(teacher), tmp_path / "out", plan)
    assert report.lossless_difference is None
    assert set(report.to_json()) >= {"source", "out", "layers", "k", "notes", "bytes_on_disk"}
    folder.load(tmp_path / "out")


def test_the_same_plan_writes_the_same_bytes(teacher, tmp_path):
    plan = ConversionPlan(k=4, slots=6, propose="proxy:3", candidates=12, skip="lowrank:2", seed=5)
    for name in ("one", "two"):
        convert(str(teacher), tmp_path / name, plan)
    one, two = (
        {f.name: f.read_bytes() for f in (tmp_path / n).rglob("*") if f.is_file()} for n in ("one", "two")
    )
    assert one == two


def test_a_plan_that_does_not_fit_leaves_no_folder(teacher, tmp_path):
    for plan in (
        ConversionPlan(k=25),
        ConversionPlan(layers="7"),
        ConversionPlan(propose="score", candidates=99),
    ):
        with pytest.raises((BankSizeError, UsageError)):
            convert(str(teacher), tmp_path / "out", plan)
        assert not (tmp_path / "out").exists()


def test_dtype_is_what_is_written(teacher, tmp_path):
    convert(str(teacher), tmp_path / "out", ConversionPlan(), dtype=torch.bfloat16)
    assert {p.dtype for p in folder.load(tmp_path / "out").parameters()} == {torch.bfloat16}


# ---- banks as planned
def test_new_slots_beside_a_mirror_are_like_the_blocks_own():
    student = build_student(tiny_model("llama"), ConversionPlan(slots=300))
    bank = banks(student)[0]
    base, new = bank.shards["base"], bank.shards["new"]
    assert (base.n_slots, new.n_slots, bank.n_slots) == (D_MLP, 300, D_MLP + 300)
    assert new.gated
    assert type(new.activation) is type(base.activation)
    assert float((new.key.std() / base.key.std()).detach()) == pytest.approx(1, abs=0.1)
    assert float((new.value.std() / base.value.std()).detach()) == pytest.approx(0.05, abs=0.01)


def test_a_weighting_of_new_slots_is_ungated():
    bank = banks(build_student(tiny_model("llama"), ConversionPlan(slots=6, weight="relu")))[0]
    assert not bank.shards["new"].gated
    assert bank.shards["new"].rule == "relu"
    assert bank.shards["base"].gated


@pytest.mark.parametrize("family", ["gpt2", "opt", "bloom"])
def test_new_slots_of_a_family_with_biases_have_them(family):
    student = build_student(tiny_model(family), ConversionPlan(slots=6))
    assert torch.equal(banks(student)[0].shards["new"].key_bias, torch.zeros(6))
    student(tokens())


@pytest.mark.parametrize(
    ("kind", "bank_type"),
    [("mirror", MirrorBank), ("featural", FeaturalBank), ("associative", AssociativeBank)],
)
def test_a_plan_names_its_bank(kind, bank_type):
    heads = 1 if kind == "mirror" else 4
    student = build_student(tiny_model("gpt2"), ConversionPlan(kind, heads=heads, k=5, skip="affine"))
    for bank in banks(student).values():
        assert type(bank) is bank_type
        assert (bank.n_slots, bank.n_heads, bank.k, bank.d_model) == (D_MLP, heads, 5, D_MODEL)
        assert bank.skip is not None


def test_layers_differ_in_their_random_start_and_seeds_too():
    teacher = tiny_model("llama")
    one, other = (banks(build_student(teacher, ConversionPlan("featural", seed=s))) for s in (0, 1))
    assert not torch.equal(one[0].rows.key, one[1].rows.key)
    assert not torch.equal(one[0].rows.key, other[0].rows.key)
    # A layer's start does not depend on which others are converted.
    alone = banks(build_student(teacher, ConversionPlan("featural", layers="1")))
    assert torch.equal(alone[1].rows.key, one[1].rows.key)


@pytest.mark.parametrize("plan", [ConversionPlan(k=25), ConversionPlan("featural", slots=4, k=5)])
def test_a_k_above_the_slots_is_refused_with_what_is_allowed(plan):
    with pytest.raises(
        BankSizeError, match=r"k = \d+, but the bank of layer 0 holds \d+ slots; give --k 1 to \d+ or all"
    ):
        build_student(tiny_model("llama"), plan)


def test_lossless_difference_sees_a_difference():
    teacher = tiny_model("llama")
    student = build_student(teacher, ConversionPlan(k=2))
    assert lossless_difference(teacher, student) <= 1e-4
    assert banks(student)[0].k == 2
    with torch.no_grad():
        banks(student)[1].shards["base"].value[3] += 1
    assert lossless_difference(teacher, student) > 1e-2
