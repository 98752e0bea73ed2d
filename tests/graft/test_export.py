import json

import pytest
import torch
from graft.tiny import CONFIGS, save_teacher, tiny_model, tiny_tokenizer, tokens
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from mindset.errors import DiskFullError, MindsetError, ModelFolderError, UnsupportedModelError, UsageError
from mindset.graft import folder
from mindset.graft.convert import build_student
from mindset.graft.export import densify, export_dense
from mindset.graft.model import MindsetModel, banks
from mindset.graft.plan import ConversionPlan

CASES = [*((family, {}) for family in CONFIGS), ("llama", {"mlp_bias": True}), ("falcon", {"bias": True})]


@pytest.mark.parametrize(("family", "more"), CASES, ids=["-".join((f, *m)) for f, m in CASES])
@pytest.mark.parametrize("layers", ["all", "1"])
def test_round_trip_is_the_teacher_bit_for_bit(family, more, layers, tmp_path):
    teacher = tiny_model(family, **more)
    folder.save(build_student(teacher, ConversionPlan(layers=layers)), tmp_path / "m", tiny_tokenizer())
    export_dense(tmp_path / "m", tmp_path / "dense")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert type(plain) is type(teacher)
    state = plain.state_dict()
    assert state.keys() == teacher.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in teacher.state_dict().items())
    assert torch.equal(plain(tokens()).logits, teacher(tokens()).logits)


def test_the_exported_folder_is_a_plain_one(tmp_path):
    save_teacher(tiny_model("llama"), tmp_path / "teacher")
    folder.save(build_student(tiny_model("llama"), ConversionPlan()), tmp_path / "m", tiny_tokenizer())
    export_dense(tmp_path / "m", tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    assert config == json.loads((tmp_path / "teacher" / "config.json").read_text())
    assert not (tmp_path / "dense" / "memory").exists()
    assert AutoTokenizer.from_pretrained(tmp_path / "dense")("w5 w6")["input_ids"] == [5, 6]


def test_what_was_learnt_is_exported():
    student = build_student(tiny_model("gpt2"), ConversionPlan())
    with torch.no_grad():
        for bank in banks(student).values():
            bank.shards["base"].value[2] += 1
            bank.shards["base"].key_bias[3] -= 1
            bank.bias += 0.5
    dense = densify(student)
    assert not isinstance(dense, MindsetModel)
    torch.testing.assert_close(dense(tokens()).logits, student(tokens()).logits)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_dtype_is_kept(dtype, tmp_path):
    teacher = tiny_model("llama", dtype=dtype)
    folder.save(build_student(teacher, ConversionPlan()), tmp_path / "m", tiny_tokenizer())
    export_dense(tmp_path / "m", tmp_path / "dense")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (ConversionPlan(k=4), "it reads k = 4 slots"),
        (ConversionPlan(propose="score", candidates=8), "it reads 8 proposed slots"),
        (ConversionPlan(skip="affine"), "it has a skip"),
        (ConversionPlan(slots=4), "it has slots beside the block's own"),
        (ConversionPlan("featural"), "a featural bank is no feed-forward block"),
        (ConversionPlan("associative"), "an associative bank is no feed-forward block"),
    ],
)
def test_what_is_no_feed_forward_block_is_refused_with_the_reason(plan, why, tmp_path):
    folder.save(build_student(tiny_model("llama"), plan), tmp_path / "m", tiny_tokenizer())
    with pytest.raises(UnsupportedModelError, match=f"layer 0 cannot be exported as a dense model: {why}"):
        export_dense(tmp_path / "m", tmp_path / "dense")
    assert not (tmp_path / "dense").exists()


def test_a_full_folder_and_a_plain_source_are_refused(tmp_path):
    save_teacher(tiny_model("llama"), tmp_path / "teacher")
    with pytest.raises(UsageError, match="is not empty"):
        export_dense(tmp_path / "teacher", tmp_path / "teacher")
    with pytest.raises(ModelFolderError, match="plain llama model"):
        export_dense(tmp_path / "teacher", tmp_path / "dense")


def test_a_source_without_a_tokenizer_leaves_nothing_behind(tmp_path):
    folder.save(build_student(tiny_model("llama"), ConversionPlan()), tmp_path / "m")
    with pytest.raises(MindsetError, match="has no tokenizer"):
        export_dense(tmp_path / "m", tmp_path / "dense")
    assert not (tmp_path / "dense").exists()


def test_a_file_in_the_way_is_refused(tmp_path):
    folder.save(build_student(tiny_model("llama"), ConversionPlan()), tmp_path / "m", tiny_tokenizer())
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        export_dense(tmp_path / "m", tmp_path / "file")


def test_a_disk_that_fills_up_is_said_in_one_sentence_and_nothing_is_left(tmp_path, monkeypatch):
    folder.save(build_student(tiny_model("llama"), ConversionPlan()), tmp_path / "m", tiny_tokenizer())

    def full(*_args, **_kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(DiskFullError, match="no space left to write"):
        export_dense(tmp_path / "m", tmp_path / "dense")
    with pytest.raises(DiskFullError, match="no space left to write"):
        folder.save(folder.load(tmp_path / "m"), tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
