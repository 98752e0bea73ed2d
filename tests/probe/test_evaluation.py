from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mindset.errors import DataError, MissingError, UsageError
from mindset.graft import folder as model_folder
from mindset.graft.convert import build_student, convert
from mindset.graft.model import MindsetModel, without_memory
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher
from mindset.probe.bits import score
from mindset.probe.evaluation import default_texts, evaluate, evaluate_models
from mindset.probe.use import fvu, slot_use
from mindset.probe.windows import Windows

KEYS = {
    "bits_per_byte", "teacher_bits_per_byte", "gap", "no_memory_bits_per_byte", "kl", "top1_agreement", "fvu",
    "slot_use", "dense_parameters", "teacher_dense_parameters", "memory_parameters", "bytes_on_disk",
    "tokens_per_second", "teacher_tokens_per_second",
}  # fmt: skip
TEXTS = {
    "story": ("Once upon a time there was a tiny model. It read an öde and was glad. " * 20, 32),
    "other": ("The river froze, and nobody wrote a letter until spring came again. " * 12, 64),
}
PARAMETERS_OF_A_BANK = 3 * 48 * 32


def test_a_lossless_student_has_no_gap(speaker_folder: Path) -> None:
    teacher = load_teacher(str(speaker_folder))
    student = build_student(teacher.model, ConversionPlan())
    result = evaluate_models(student, teacher.model, teacher.tokenizer, TEXTS, speed_pairs=1)
    for figures in (result.pooled, *result.texts):
        assert abs(figures.gap) < 1e-5
        assert abs(figures.kl) < 1e-5
        assert figures.top1_agreement > 0.99
        assert figures.interval[0] <= figures.bits_per_byte <= figures.interval[1]
        assert figures.gap_interval[0] <= figures.gap <= figures.gap_interval[1]
    assert max(result.fvu) < 1e-8
    assert result.slot_use == (1.0, 1.0)
    assert result.memory_parameters == 2 * PARAMETERS_OF_A_BANK
    assert result.dense_parameters + result.memory_parameters == result.teacher_dense_parameters
    assert result.speed is not None
    assert result.speed.prompt_tokens + result.speed.new_tokens <= 128


def test_figures_are_those_of_the_parts(speaker_folder: Path) -> None:
    teacher = load_teacher(str(speaker_folder))
    student = build_student(teacher.model, ConversionPlan(k=4))
    result = evaluate_models(student, teacher.model, teacher.tokenizer, TEXTS, speed_pairs=0)
    cut = {name: Windows.of(text, teacher.tokenizer, length) for name, (text, length) in TEXTS.items()}
    nats, n_bytes = 0.0, 0
    for figures in result.texts:
        windows = cut[figures.name]
        ours = score(student, windows)
        assert figures.bits_per_byte == pytest.approx(ours.bits_per_byte, rel=1e-6)
        assert figures.teacher_bits_per_byte == pytest.approx(
            score(teacher.model, windows).bits_per_byte, rel=1e-6
        )
        with without_memory(student):
            assert figures.no_memory_bits_per_byte == pytest.approx(score(student, windows).bits_per_byte)
        assert (figures.tokens, figures.windows, figures.window) == (
            ours.tokens,
            len(windows),
            windows.length,
        )
        nats, n_bytes = nats + ours.nll.sum(), n_bytes + ours.n_bytes.sum()
    assert result.pooled.bits_per_byte == pytest.approx(nats / n_bytes / math.log(2), rel=1e-6)
    assert result.pooled.gap == pytest.approx(
        result.pooled.bits_per_byte - result.pooled.teacher_bits_per_byte
    )
    assert result.pooled.tokens == sum(figures.tokens for figures in result.texts)
    assert result.pooled.kl > 0.001
    one = evaluate_models(student, teacher.model, teacher.tokenizer, {"story": TEXTS["story"]}, speed_pairs=0)
    assert one.fvu == pytest.approx(fvu(student, teacher.model, cut["story"]))
    assert one.slot_use == pytest.approx(slot_use(student, cut["story"]))
    assert one.pooled.bits_per_byte == one.texts[0].bits_per_byte


def test_a_folder_is_measured_against_what_it_was_made_from(speaker_folder: Path, tmp_path: Path) -> None:
    convert(str(speaker_folder), tmp_path / "student", ConversionPlan(k=4, layers="1"))
    (tmp_path / "text.txt").write_bytes(TEXTS["story"][0].encode())
    told: list[tuple[str, int, int]] = []
    result = evaluate(
        tmp_path / "student",
        texts=[tmp_path / "text.txt"],
        progress=lambda *step: told.append(step),
        speed_pairs=1,
        seed=3,
    )
    figures = json.loads(json.dumps(result.to_json()))
    assert figures.keys() >= KEYS
    assert all(figures[key] is not None for key in KEYS)
    assert (figures["name"], figures["teacher"], figures["seed"]) == ("student", "speaker", 3)
    assert [text["name"] for text in figures["texts"]] == ["text.txt"]
    assert (figures["layers"], figures["k"]) == ([1], [4])
    assert len(figures["fvu"]) == len(figures["slot_use"]) == 1
    memory = [p for p in (tmp_path / "student" / "memory").rglob("*") if p.is_file()]
    weights = [*memory, tmp_path / "student" / "model.safetensors"]
    assert figures["bytes_on_disk"] == sum(path.stat().st_size for path in weights)
    assert figures["teacher_bytes_on_disk"] == (speaker_folder / "model.safetensors").stat().st_size
    assert figures["bytes_in_ram"] >= 4 * (figures["dense_parameters"] + figures["memory_parameters"])
    assert {stage for stage, _, _ in told} == {
        "text.txt: both models",
        "text.txt: without memory",
        "decoding in turn",
    }


@pytest.mark.parametrize("memory", [True, False])
def test_a_model_against_itself(memory: bool, speaker_folder: Path, tmp_path: Path) -> None:
    folder = speaker_folder
    if memory:
        folder = tmp_path / "student"
        convert(str(speaker_folder), folder, ConversionPlan(k=4))
    (tmp_path / "text.txt").write_text(TEXTS["other"][0])
    result = evaluate(folder, against=folder, texts=[tmp_path / "text.txt"], speed_pairs=0)
    assert result.pooled.gap == result.pooled.gap_interval[0] == 0
    assert abs(result.pooled.kl) < 1e-6
    assert (result.pooled.no_memory_bits_per_byte is not None) == memory
    assert len(result.fvu) == (2 if memory else 0)
    assert result.to_json()["tokens_per_second"] is None


def test_what_cannot_be_measured_says_what_to_do(
    speaker_folder: Path, tokenizers: dict[str, PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"names no teacher.*--against MODEL"):
        evaluate(speaker_folder)
    gone = tmp_path / "gone"
    shutil.copytree(speaker_folder, gone)
    convert(str(gone), tmp_path / "student", ConversionPlan())
    shutil.rmtree(gone)
    with pytest.raises(MissingError, match=r"made from .*gone, which cannot be loaded.*--against MODEL"):
        evaluate(tmp_path / "student")
    student = model_folder.load(tmp_path / "student")
    assert isinstance(student, MindsetModel)
    student.source = None
    model_folder.save(student, tmp_path / "orphan", load_teacher(str(speaker_folder)).tokenizer)
    with pytest.raises(UsageError, match="does not say what it was made from"):
        evaluate(tmp_path / "orphan")
    other = tmp_path / "other"
    shutil.copytree(speaker_folder, other)
    tokenizers["byte fallback"].save_pretrained(other)
    with pytest.raises(UsageError, match="different tokenizers"):
        evaluate(tmp_path / "student", against=other)
    with pytest.raises(UsageError, match="no text"):
        evaluate_models(student, student, tokenizers["byte level"], {})


def test_texts_that_cannot_be_read_are_named(speaker_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("öde".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8 text"):
        evaluate(speaker_folder, texts=[tmp_path / "latin.txt"])
    with pytest.raises(MissingError, match="no such file"):
        evaluate(speaker_folder, texts=[tmp_path / "none.txt"])


def test_texts_of_one_name_stay_apart(speaker_folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a" / "text.txt", tmp_path / "b" / "text.txt"]
    for file in files:
        file.parent.mkdir()
        file.write_text("Once upon a time there was a tiny model.")
    result = evaluate(speaker_folder, against=speaker_folder, texts=files, speed_pairs=0)
    assert [text.name for text in result.texts] == [str(file) for file in files]


def test_the_default_text_is_pythons_own() -> None:
    ((name, (text, window)),) = default_texts().items()
    assert (name, len(text), window) == ("pydoc_topics", 60_000, 512)


def test_a_trained_model_needs_its_memory(shared: Path) -> None:
    teacher = load_teacher(str(shared / "teachers" / "tinystories-656k"))
    student = build_student(teacher.model, ConversionPlan(k=32))
    text = (shared / "text" / "tinystories.txt").read_bytes().decode()[:6_000]
    result = evaluate_models(
        student, teacher.model, teacher.tokenizer, {"tinystories": (text, 256)}, speed_pairs=0
    )
    assert result.pooled.teacher_bits_per_byte < 1.4
    assert 0.05 < result.pooled.gap < 0.3
    assert result.pooled.no_memory_bits_per_byte is not None
    assert result.pooled.no_memory_bits_per_byte > result.pooled.bits_per_byte + 1
    assert all(0 < share < 0.3 for share in result.fvu)


def test_both_compute_in_the_dtype_asked_for(speaker_folder: Path, tmp_path: Path) -> None:
    convert(str(speaker_folder), tmp_path / "student", ConversionPlan())
    (tmp_path / "text.txt").write_text(TEXTS["other"][0])
    texts = [tmp_path / "text.txt"]
    result = evaluate(tmp_path / "student", texts=texts, speed_pairs=0, dtype=torch.bfloat16)
    assert result.settings["dtype"] == "bfloat16"
    assert result.bytes_in_ram < 2.1 * result.teacher_dense_parameters
