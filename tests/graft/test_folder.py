import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from graft.tiny import CONFIGS, save_teacher, tiny_model, tiny_tokenizer, tokens
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import mindset.hf  # noqa: F401  for the auto classes
from mindset.errors import (
    DiskFullError,
    FormatError,
    MindsetError,
    MissingError,
    ModelFolderError,
    UnsupportedModelError,
    UsageError,
    WeightsError,
)
from mindset.graft import folder
from mindset.graft.convert import build_student
from mindset.graft.model import MindsetModel, banks, learning
from mindset.graft.plan import ConversionPlan

PLANS = {
    "mirror": ConversionPlan(),
    "mirror-k": ConversionPlan(k=4),
    "mirror-score": ConversionPlan(k=4, propose="score", candidates=8, layers="1"),
    "mirror-proxy-new": ConversionPlan(k=4, slots=6, propose="proxy:3", candidates=12, skip="lowrank:2"),
    "mirror-new-gelu": ConversionPlan(k=4, slots=6, weight="gelu", skip="affine"),
    "featural": ConversionPlan("featural", slots=12, heads=2, k=3, weight="distance", skip="affine"),
    "featural-softmax": ConversionPlan("featural", slots=12, heads=1, k=3, weight="softmax"),
    "associative": ConversionPlan("associative", slots=30, heads=2, k=3, gradient="scores"),
}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def make(
    plan: str = "mirror-k", family: str = "llama", dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """A student with nothing at its zero start and, where it learns, something learnt."""
    student = build_student(tiny_model(family), PLANS[plan])
    with learning(student), torch.no_grad():
        student(tokens(seed=3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for bank in banks(student).values():
            for parameter in () if bank.skip is None else bank.skip.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return student.to(dtype)


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def assert_same_model(one: PreTrainedModel, other: PreTrainedModel) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor, second[name]), name


@pytest.fixture
def saved(tmp_path):
    """A folder as `mindset convert` leaves it."""
    target = tmp_path / "saved"
    folder.save(make("mirror-proxy-new"), target, tiny_tokenizer())
    return target


# ---- there and back
@pytest.mark.parametrize(
    ("plan", "dtype"),
    [
        *((plan, torch.float32) for plan in PLANS),
        *((plan, dtype) for plan in ("mirror-proxy-new", "featural", "associative") for dtype in DTYPES[1:]),
    ],
)
def test_load_of_save_is_the_same_bit_for_bit(plan, dtype, tmp_path):
    student = make(plan, dtype=dtype)
    folder.save(student, tmp_path / "m")
    again = folder.load(tmp_path / "m")
    assert_same_model(student, again)
    assert again.parts == student.parts
    assert not again.training
    rotary = again.model.rotary_emb  # not saved, and `student.to` has rounded it to the dtype
    student.model.rotary_emb.inv_freq = rotary.inv_freq
    for ids in (tokens(), tokens(1, 1)):
        # Equal but for where the rows lie in RAM, which the order of a vectorised sum depends on.
        near = 1e-5 if dtype.itemsize > 2 else 0.05
        torch.testing.assert_close(again(ids).logits, student(ids).logits, rtol=near, atol=near)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_comes_back(family, tmp_path):
    student = make("mirror-k", family)
    student.save_pretrained(tmp_path / "m")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert type(again) is type(student)
    assert_same_model(student, again)
    torch.testing.assert_close(again(tokens()).logits, student(tokens()).logits)
    tied = student.get_input_embeddings().weight is student.get_output_embeddings().weight
    assert (again.get_input_embeddings().weight is again.get_output_embeddings().weight) == tied


def test_saving_is_deterministic_and_loading_writes_nothing(saved, tmp_path):
    before = files(saved)
    again = folder.load(saved)
    disk = folder.load(saved, slots="disk")
    disk(tokens())
    assert files(saved) == before
    folder.save(again, tmp_path / "again", tiny_tokenizer())
    assert files(tmp_path / "again") == before


def test_the_folder_has_the_documented_pieces(saved):
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "mindset"
    assert config["architectures"] == ["MindsetForCausalLM"]
    assert config["base"]["model_type"] == "llama"
    assert config["base"]["architectures"] == ["LlamaForCausalLM"]
    assert [(part["kind"], part["version"], part["layer"]) for part in config["parts"]] == [
        ("bank", 1, 0),
        ("bank", 1, 1),
    ]
    assert {p.name for p in saved.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "memory",
        "tokenizer.json",
    }
    assert not [p for p in saved.rglob("*") if p.suffix in (".bin", ".pt", ".pkl") or p.name.startswith(".")]


def test_the_base_config_is_the_teachers_own(tmp_path):
    teacher = tiny_model("llama", rope_theta=5000.0)
    save_teacher(teacher, tmp_path / "teacher")
    student = build_student(AutoModelForCausalLM.from_pretrained(tmp_path / "teacher"), PLANS["mirror"])
    folder.save(student, tmp_path / "m")
    base = json.loads((tmp_path / "m" / "config.json").read_text())["base"]
    assert base == json.loads((tmp_path / "teacher" / "config.json").read_text())


# ---- as an ordinary Hugging Face model
def test_auto_classes_open_it(saved):
    model = AutoModelForCausalLM.from_pretrained(saved)
    assert isinstance(model, MindsetModel)
    assert_same_model(model, folder.load(saved))
    assert AutoConfig.from_pretrained(saved).base["model_type"] == "llama"
    tokenizer = AutoTokenizer.from_pretrained(saved)
    ids = tokenizer("w5 w6 w7", return_tensors="pt")["input_ids"]
    assert ids.tolist() == [[5, 6, 7]]
    assert tokenizer.decode(model.generate(ids, max_new_tokens=4, min_new_tokens=4)[0]).startswith(
        "w5 w6 w7 w"
    )


def test_auto_classes_open_it_in_a_fresh_process_after_one_import(saved):
    code = """if True:
        import sys, mindset.hf
        from transformers import AutoModelForCausalLM
        print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1])).__name__)
    """
    done = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True)
    assert done.stdout.strip() == "MindsetLlamaForCausalLM", done.stderr


def test_dtype_device_and_attention_are_passed_on(saved):
    for dtype in (torch.float64, "bfloat16"):
        wanted = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
        for model in (
            folder.load(saved, dtype=wanted),
            AutoModelForCausalLM.from_pretrained(saved, dtype=dtype),
        ):
            assert {p.dtype for p in model.parameters()} == {wanted}
            assert model(tokens()).logits.dtype == wanted
    AutoModelForCausalLM.from_pretrained(saved, device_map="cpu")(tokens())
    model = AutoModelForCausalLM.from_pretrained(saved, attn_implementation="eager")
    assert model.config._attn_implementation == "eager"
    assert folder.load(saved).config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("plan", "family"),
    [
        *((plan, "llama") for plan in PLANS),
        *(("mirror-score", family) for family in ("gpt2", "opt", "bloom")),
    ],
)
def test_generating_with_a_cache_is_generating_without(plan, family):
    student = make(plan, family).double()
    asked = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    with_cache = student.generate(tokens(2, 5), use_cache=True, **asked)
    assert torch.equal(with_cache, student.generate(tokens(2, 5), use_cache=False, **asked))


@pytest.mark.parametrize("plan", PLANS)
def test_a_left_padded_row_reads_as_it_does_alone(plan):
    student = make(plan).double()
    short, long = tokens(1, 4), tokens(1, 9, seed=1)
    ids = torch.cat([torch.cat([torch.zeros(1, 5, dtype=torch.long), short], dim=1), long])
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    position = (mask.cumsum(-1) - 1).clamp_min(0)
    batched = student(ids, attention_mask=mask, position_ids=position).logits
    torch.testing.assert_close(batched[0, 5:], student(short).logits[0])
    torch.testing.assert_close(batched[1], student(long).logits[0])
    asked = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    drawn = student.generate(ids, attention_mask=mask, **asked)
    assert torch.equal(drawn[0, 9:], student.generate(short, **asked)[0, 4:])
    assert torch.equal(drawn[1, 9:], student.generate(long, **asked)[0, 9:])


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_beam_search_at_k_all_is_the_teachers(family, tmp_path):
    teacher = tiny_model(family, dtype=torch.float64)
    folder.save(build_student(teacher, PLANS["mirror"]), tmp_path / "m")
    student = folder.load(tmp_path / "m")
    asked = {"num_beams": 3, "max_new_tokens": 10, "do_sample": False, "length_penalty": 0.8}
    assert torch.equal(student.generate(tokens(2, 5), **asked), teacher.generate(tokens(2, 5), **asked))
    few = make("mirror-k", family)
    assert few.generate(tokens(2, 5), **asked).shape[0] == 2


def test_a_generation_config_travels(tmp_path):
    student = make()
    student.generation_config.max_new_tokens = 3
    student.generation_config.eos_token_id = 39
    folder.save(student, tmp_path / "m")
    again = folder.load(tmp_path / "m")
    assert again.generation_config.max_new_tokens == 3
    assert again.generation_config.eos_token_id == 39


# ---- slots on disk
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_slots_on_disk_give_the_same_logits(plan, dtype, tmp_path):
    folder.save(make(plan, dtype=dtype), tmp_path / "m")
    before = files(tmp_path / "m")
    ram, disk = folder.load(tmp_path / "m"), folder.load(tmp_path / "m", slots="disk")
    for ids in (tokens(), tokens(1, 1)):
        near = 1e-5 if dtype.itemsize > 2 else 0.05
        torch.testing.assert_close(ram(ids).logits, disk(ids).logits, rtol=near, atol=near)
    asked = {"max_new_tokens": 5, "do_sample": False}
    if dtype == torch.float32:
        assert torch.equal(ram.generate(tokens(1, 4), **asked), disk.generate(tokens(1, 4), **asked))
    values = [shard.value for bank in banks(disk).values() for shard in bank.shards.values()]
    assert not any(value.requires_grad for value in values)
    assert files(tmp_path / "m") == before


def test_slots_on_disk_cannot_be_cast_or_moved(saved):
    with pytest.raises(UsageError, match="leave dtype and device alone"):
        folder.load(saved, slots="disk", dtype=torch.float64)
    with pytest.raises(UsageError, match="leave dtype and device alone"):
        folder.load(saved, slots="disk", device="meta")


def test_a_disk_model_can_be_saved_elsewhere(saved, tmp_path):
    folder.save(folder.load(saved, slots="disk"), tmp_path / "copy", tiny_tokenizer())
    assert files(tmp_path / "copy") == files(saved)


def test_a_disk_model_can_be_saved_over_itself(saved):
    before = files(saved)
    model = folder.load(saved, slots="disk")
    wanted = model(tokens()).logits
    folder.save(model, saved, tiny_tokenizer())
    assert files(saved) == before
    assert torch.equal(model(tokens()).logits, wanted)


# ---- saving over, beside and in the way
def test_saving_over_an_older_student_replaces_it_and_leaves_other_files(saved):
    (saved / "notes.txt").write_text("mine")
    student = make("featural")
    folder.save(student, saved)
    assert_same_model(folder.load(saved), student)
    assert (saved / "notes.txt").read_text() == "mine"
    assert (saved / "tokenizer.json").is_file()


def test_another_models_folder_is_not_overwritten(tmp_path):
    save_teacher(tiny_model("llama"), tmp_path / "teacher")
    before = files(tmp_path / "teacher")
    with pytest.raises(UsageError, match="holds a model of another kind; give a new folder"):
        folder.save(make(), tmp_path / "teacher")
    assert files(tmp_path / "teacher") == before


def test_a_file_in_the_way_and_a_model_without_banks_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        folder.save(make(), tmp_path / "file")
    with pytest.raises(UsageError, match="only a model with banks"):
        folder.save(tiny_model("llama"), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_a_killed_writer_left_is_cleared(saved):
    left = saved / ".writing-1"
    left.mkdir()
    (left / "config.json").write_text("{}")
    (saved / f".writing-{os.getpid()}").mkdir()
    folder.save(make(), saved)
    assert not list(saved.glob(".writing*"))


def _steps() -> list[str]:
    """Everything a save does to the disk by name, in the order in which it does it."""
    return [
        "Path.replace",
        "Path.unlink",
        "Path.mkdir",
        "shutil.rmtree",
        "MemoryDir.write",
        "Path.write_text",
    ]


def _sabotage(patch: pytest.MonkeyPatch, step: str, count: int, error: OSError) -> None:
    """Let the `count`-th use of `step` fail, and all later ones but those that clean up."""
    owner: object = {"Path": Path, "shutil": shutil, "MemoryDir": folder.MemoryDir}[
        step.split(".", maxsplit=1)[0]
    ]
    name, seen = step.split(".")[1], []
    original = getattr(owner, name)

    def fail(*args, **kwargs):
        seen.append(1)
        if len(seen) == count:
            raise error
        return original(*args, **kwargs)

    patch.setattr(owner, name, staticmethod(fail) if step == "MemoryDir.write" else fail)


@pytest.mark.parametrize("step", _steps())
def test_a_failure_at_any_step_leaves_nothing_half_written_that_loads(step, tmp_path):
    target, kept = tmp_path / "m", tmp_path / "kept"
    old, new = make("featural"), make("mirror-k")
    folder.save(old, kept)
    failures = 0
    for count in range(1, 40):
        shutil.rmtree(target, ignore_errors=True)
        if count % 2 or step == "Path.unlink":  # over an old one, and where nothing was
            shutil.copytree(kept, target)
        with pytest.MonkeyPatch.context() as patch:
            _sabotage(patch, step, count, OSError(errno.EIO, "broken"))
            try:
                folder.save(new, target, tiny_tokenizer())
            except OSError:
                failures += 1
            else:
                break
        try:
            found = folder.load(target)
        except MindsetError:
            assert not (target / "config.json").exists()
        else:
            wanted = new if banks(found)[0].kind == "mirror" else old
            assert_same_model(found, wanted)
    else:
        pytest.fail("it never came through")
    assert_same_model(folder.load(target), new)  # and done again it comes through
    assert failures or step in ("Path.unlink", "shutil.rmtree")


def test_a_full_disk_is_said_in_one_sentence_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(folder.MemoryDir, "write", staticmethod(full))
    with pytest.raises(DiskFullError, match="no space left to write"):
        folder.save(make(), tmp_path / "m")
    assert not (tmp_path / "m").exists()


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import torch
    sys.path.insert(0, sys.argv[2])
    from graft.tiny import tiny_model
    from mindset.graft import folder
    from mindset.graft.convert import build_student
    from mindset.graft.plan import ConversionPlan

    student = build_student(tiny_model("llama", seed=1), ConversionPlan(k=4))
    original, target, seen = Path.replace, int(sys.argv[3]), []

    def replace(self, other):
        seen.append(1)
        if len(seen) == target:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, other)

    Path.replace = replace
    folder.save(student, Path(sys.argv[1]))
"""


@pytest.mark.parametrize("moves", [5, 10], ids=["writing", "publishing"])
def test_kill_9_while_saving_leaves_the_old_model_or_none(moves, tmp_path):
    target = tmp_path / "m"
    old = make("featural")
    folder.save(old, target)
    code, here = textwrap.dedent(KILLED), str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, str(target), here, str(moves)], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    if moves == 5:
        assert_same_model(folder.load(target), old)
    else:
        with pytest.raises(ModelFolderError, match=r"no config\.json"):
            folder.load(target)
    folder.save(old, target)
    assert_same_model(folder.load(target), old)
    assert not list(target.glob(".writing*"))


# ---- damage: one clear error each
def change(path: Path, **changes: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def change_part(d: Path, **changes: object) -> None:
    config = json.loads((d / "config.json").read_text())
    config["parts"][0] |= changes
    (d / "config.json").write_text(json.dumps(config))


def truncate(path: Path, keep: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 0xFF
    path.write_bytes(data)


def drop_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(path)
    state.pop("model.norm.weight")
    save_file(state, path)


def reshape_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(path)
    state["model.norm.weight"] = torch.zeros(3)
    save_file(state, path)


DAMAGE = {
    "no weights": (lambda d: (d / "model.safetensors").unlink(), WeightsError, "model.safetensors"),
    "weights cut off": (lambda d: truncate(d / "model.safetensors"), WeightsError, "model.safetensors"),
    "weights empty": (lambda d: truncate(d / "model.safetensors", 0), WeightsError, "model.safetensors"),
    "weights lack a tensor": (
        lambda d: drop_tensor(d / "model.safetensors"),
        WeightsError,
        "lacks 1 tensors",
    ),
    "weights of another shape": (lambda d: reshape_tensor(d / "model.safetensors"), WeightsError, "shape"),
    "no memory": (lambda d: shutil.rmtree(d / "memory"), MissingError, "holds no memory"),
    "no manifest": (lambda d: (d / "memory" / "memory.json").unlink(), MissingError, "holds no memory"),
    "manifest cut off": (lambda d: truncate(d / "memory" / "memory.json"), FormatError, "memory.json"),
    "no slab": (lambda d: next((d / "memory").glob("*.slab")).unlink(), FormatError, "incomplete"),
    "slab cut off": (lambda d: truncate(next((d / "memory").glob("*.slab"))), FormatError, "cut off"),
    "slab flipped": (lambda d: flip(next((d / "memory").glob("*.slab"))), FormatError, "damaged"),
    "no config": (lambda d: (d / "config.json").unlink(), ModelFolderError, "no config.json"),
    "config cut off": (lambda d: truncate(d / "config.json"), ModelFolderError, "config.json"),
    "config a list": (lambda d: (d / "config.json").write_text("[]"), ModelFolderError, "model_type"),
    "later format": (lambda d: change(d, format_version=99), FormatError, "format version 99"),
    "no format": (lambda d: change(d, format_version=None), FormatError, "format version None"),
    "no base": (lambda d: change(d, base=None), FormatError, "damaged"),
    "base without a type": (lambda d: change(d, base={}), FormatError, "damaged"),
    "unknown base": (lambda d: change(d, base={"model_type": "no-such"}), FormatError, "base"),
    "unsupported base": (lambda d: change(d, base={"model_type": "bert"}), UnsupportedModelError, "bert"),
    "no parts": (lambda d: change(d, parts=None), FormatError, "parts"),
    "parts a number": (lambda d: change(d, parts=[3]), FormatError, "parts"),
    "fewer parts than banks": (lambda d: change(d, parts=[]), FormatError, "layer 0"),
    "unknown kind": (lambda d: change_part(d, kind="gate"), FormatError, "kind 'gate'"),
    "later part": (lambda d: change_part(d, version=7), FormatError, "version 7; this release reads 1"),
    "unknown bank": (lambda d: change_part(d, bank="holographic"), FormatError, "kind 'holographic'"),
    "no such layer": (
        lambda d: change_part(d, layer=40, path="model.layers.40.mlp"),
        FormatError,
        "damaged|layer",
    ),
    "no shards": (lambda d: change_part(d, shards=None), FormatError, "damaged"),
    "empty shards": (lambda d: change_part(d, shards=[]), FormatError, "damaged"),
    "unknown skip": (lambda d: change_part(d, skip="cubic"), MindsetError, "'cubic' is no skip"),
    "k above the slots": (
        lambda d: change_part(d, k=999, propose="all", candidates=None),
        MindsetError,
        "k = 999",
    ),
    "width of another model": (lambda d: change_part(d, d_model=20), MindsetError, "shape|damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_sentence(damage, saved):
    harm, error, message = DAMAGE[damage]
    harm(saved)
    for open_it in (folder.load, AutoModelForCausalLM.from_pretrained):
        if open_it is not folder.load and damage in ("no config", "config cut off", "config a list"):
            continue  # transformers reads the config first and says so itself
        with pytest.raises(error, match=message) as caught:
            open_it(saved)
        assert isinstance(caught.value, MindsetError)
        assert "\n" not in str(caught.value).strip()


def test_a_plain_model_and_no_folder_are_refused(tmp_path):
    save_teacher(tiny_model("llama"), tmp_path / "teacher")
    with pytest.raises(ModelFolderError, match="is a plain llama model"):
        folder.load(tmp_path / "teacher")
    with pytest.raises(ModelFolderError, match="no such folder"):
        folder.load(tmp_path / "nothing")
