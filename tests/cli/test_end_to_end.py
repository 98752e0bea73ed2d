"""The commands one after the other, as a person types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForCausalLM, AutoTokenizer

from mindset.cli.app import app

PROMPT = "Once upon a time"
TEXT = "Once upon a time there was a tiny model that read an öde about rivers, and it was glad.\n" * 12
EVAL_KEYS = {
    "bits_per_byte", "teacher_bits_per_byte", "gap", "no_memory_bits_per_byte", "kl", "top1_agreement", "fvu",
    "slot_use", "dense_parameters", "teacher_dense_parameters", "memory_parameters", "bytes_on_disk",
    "tokens_per_second", "teacher_tokens_per_second",
}  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def told(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def fails(code: int, *arguments: object) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return path


def go_through(teacher: Path, text: Path, tmp_path: Path, prompt: str) -> tuple[Any, Any]:
    """Convert, measure, ask, generate, export; returns what `eval` and `why` said."""
    student, plain = tmp_path / "student", tmp_path / "plain"
    assert told("convert", teacher, "--out", student)["lossless_difference"] <= 1e-4
    figures = told("eval", student, "--text", text)
    assert figures.keys() >= EVAL_KEYS
    answer = told("why", student, prompt, "--top", 3)
    said = [told("generate", model, prompt, "--max-tokens", 24) for model in (teacher, student)]
    assert said[0] == said[1]
    assert said[0]["text"]
    told("export", student, "--dense", "--out", plain)
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (teacher, plain)]
    ids = torch.tensor([AutoTokenizer.from_pretrained(plain)(prompt)["input_ids"]])
    with torch.no_grad():
        logits = [model(input_ids=ids).logits for model in models]
    assert torch.allclose(*logits, atol=1e-5)
    return figures, answer


def test_the_whole_way_on_a_tiny_model(teacher: Path, text: Path, tmp_path: Path) -> None:
    figures, answer = go_through(teacher, text, tmp_path, PROMPT)
    assert abs(figures["gap"]) < 1e-4
    assert figures["slot_use"] == [1.0, 1.0]
    assert max(figures["fvu"]) < 1e-8
    assert figures["dense_parameters"] + figures["memory_parameters"] == figures["teacher_dense_parameters"]
    assert [text["name"] for text in figures["texts"]] == ["text.txt"]
    assert figures["seed"] == 0
    assert len(answer["slots"]) == 3
    assert {"layer", "head", "slot", "influence", "weight", "promotes", "source"} <= answer["slots"][0].keys()


def test_the_whole_way_on_a_trained_model(shared_data: Path, tmp_path: Path) -> None:
    teacher = shared_data / "teachers" / "tinystories-656k"
    text = tmp_path / "text.txt"
    text.write_bytes((shared_data / "text" / "tinystories.txt").read_bytes()[:4_000])
    figures, answer = go_through(teacher, text, tmp_path, "Once upon a time, there was a little girl")
    assert figures["bits_per_byte"] < 1.5 < figures["no_memory_bits_per_byte"]
    assert answer["candidates"][0]["probability"] > 0.2


def test_what_a_person_reads(teacher: Path, text: Path, tmp_path: Path) -> None:
    student, other = tmp_path / "student", tmp_path / "other.txt"
    other.write_text("Nobody wrote letters until spring. " * 10)
    told("convert", teacher, "--out", student, "--k", 8)
    result = run("eval", student, "--text", text, "--text", other)
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    for wanted in (["layer", "k", "fvu", "slot_use"], ["0", "8"], ["text.txt"], ["other.txt"]):
        assert any(line[: len(wanted)] == wanted for line in lines), result.stdout
    assert "decoding in turn" in result.stderr
    result = run("why", student, PROMPT, "--top", 2)
    assert result.stdout.startswith("next ")
    assert "the teacher's own neuron" in result.stdout
    result = run("generate", student, PROMPT, "--max-tokens", 5, "--temperature", 1, "--seed", 4)
    assert result.stdout.startswith(PROMPT)
    again = run("generate", student, PROMPT, "--max-tokens", 5, "--temperature", 1, "--seed", 4)
    assert again.stdout == result.stdout


def test_failures_are_one_sentence_and_exit_1(teacher: Path, text: Path, tmp_path: Path) -> None:
    empty, student, gone = tmp_path / "empty", tmp_path / "student", tmp_path / "gone"
    empty.mkdir()
    shutil.copytree(teacher, gone)
    told("convert", gone, "--out", student, "--k", 8)
    shutil.rmtree(gone)
    for command in (["eval", empty], ["why", empty, "x"], ["generate", empty, "x"]):
        assert "is no model" in fails(1, *command)
    assert "give its teacher with --against" in fails(1, "eval", student, "--text", text)
    assert "k = " in fails(1, "export", student, "--dense", "--out", tmp_path / "plain")
    weights = student / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    for command in (["why", student, "x"], ["generate", student, "x"]):
        assert "model.safetensors cannot be read" in fails(1, *command)


def test_wrong_usage_exits_2(teacher: Path) -> None:
    assert "has no memory" in fails(2, "why", teacher, PROMPT)
    assert "--against MODEL" in fails(2, "eval", teacher)
    assert "prompt is empty" in fails(2, "generate", teacher, "")
    assert "gives no access to its weights" in fails(2, "generate", "openai:gpt-4", PROMPT)
    assert "cannot use the device" in fails(2, "why", teacher, PROMPT, "--device", "abacus")
