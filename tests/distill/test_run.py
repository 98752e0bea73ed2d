from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distill.small import make_settings
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mindset.distill import gap_curve, report
from mindset.distill.report import Report
from mindset.distill.run import distill
from mindset.distill.settings import DistillSettings
from mindset.errors import FormatError, MindsetError, RunMismatchError, UnsupportedModelError, UsageError
from mindset.graft import folder as model_folder
from mindset.graft.convert import convert
from mindset.graft.model import MindsetModel, banks
from mindset.graft.plan import ConversionPlan

PLAN = ConversionPlan(k=6, skip="affine")
OWN = {"config.json", "report.json"}


@pytest.fixture
def source(tmp_path: Path, teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> str:
    teacher.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    return str(tmp_path / "teacher")


@pytest.fixture
def settings(tmp_path: Path, sentences: list[str]) -> DistillSettings:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(sentences * 30), encoding="utf-8")
    return make_settings(PLAN, data=("self", str(text)), steps=8, local_share=0.5, checkpoint_every=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured on a few windows only: what a report says is tested elsewhere."""
    monkeypatch.setattr(gap_curve, "LOOK_WORK", 1.0)
    monkeypatch.setattr(report, "SCORED_WORK", 1.0)


class BrokenOffError(Exception):
    """As a kill, but for the tests."""


def broken_off(source: str, out: Path, settings: DistillSettings, at: tuple[str, int], **more: Any) -> None:
    def heard(stage: str, done: int, total: int, **figures: float) -> None:
        if (stage, figures.get("steps", done)) == at:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        distill(source, out, settings, progress=heard, **more)


def model_bits(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and "run" not in path.relative_to(out).parts
        and path.suffix in (".safetensors", ".slab")
    }


def test_a_run_becomes_a_model_folder_with_its_report(
    tmp_path: Path, source: str, settings: DistillSettings, tokenizer: PreTrainedTokenizerFast
) -> None:
    out = tmp_path / "out"
    written = distill(source, out, settings)
    assert isinstance(written, Report)
    assert Report.read(out).is_of(settings)
    figures = written.figures
    assert figures["settings"]["plan"]["k"] == 6
    student = model_folder.load(out)
    assert isinstance(student, MindsetModel)
    assert [bank.k for bank in banks(student).values()] == [6, 6]
    assert student.source == source
    held = {path.name for path in (out / "run").iterdir()}
    assert held >= {"settings.json", "checkpoints", "tensorboard", "cache"}
    assert json.loads((out / "run/settings.json").read_text())["source"] == source


def test_a_healed_run_tells_both_healings(tmp_path: Path, source: str, settings: DistillSettings) -> None:
    written = distill(source, tmp_path / "out", replace(settings, heal_steps=2, local_share=1.0, steps=2))
    assert list(written.figures["stages"]) == ["local", "heal", "heal-teacher"]
    assert written.figures["healing"]["steps"] == 2
    assert "the teacher's healing" in written.path.read_text(encoding="utf-8")


@pytest.mark.parametrize("at", [pytest.param(("local", 3), marks=pytest.mark.slow), ("end_to_end", 3)])
def test_a_resumed_run_writes_the_same_model(
    tmp_path: Path, source: str, settings: DistillSettings, at: tuple[str, int]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    distill(source, whole, settings)
    broken_off(source, out, settings, at)
    assert not OWN & {path.name for path in out.iterdir()}
    with pytest.raises(MindsetError):
        model_folder.load(out)
    written = distill(source, out, settings, resume=True)
    assert model_bits(out) == model_bits(whole) != {}
    for told in (written, Report.read(whole)):
        assert {name: stage["steps"] for name, stage in told.figures["stages"].items()} == {
            "local": 4,
            "end_to_end": 4,
        }


def test_a_run_without_resume_is_not_gone_over(
    tmp_path: Path, source: str, settings: DistillSettings
) -> None:
    out = tmp_path / "out"
    broken_off(source, out, settings, ("local", 1))
    with pytest.raises(RunMismatchError, match="add --resume, or give another --out"):
        distill(source, out, settings)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 9}, r"\(differs in steps\)"),
        ({"plan": ConversionPlan(k=5, skip="none")}, r"\(differs in plan\.k, plan\.skip\)"),
        ({"steps": None, "minutes": 1.0, "seed": 3}, r"\(differs in steps, minutes, seed\)"),
        ({"data": ("self",)}, r"\(differs in data\)"),
        ({"precision": "bf16-mixed"}, r"\(differs in precision\)"),
    ],
)
@pytest.mark.parametrize("resume", [True, False])
def test_another_configuration_is_refused_by_what_differs(
    tmp_path: Path, source: str, settings: DistillSettings, change: dict[str, Any], told: str, resume: bool
) -> None:
    out = tmp_path / "out"
    broken_off(source, out, settings, ("local", 3))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(RunMismatchError, match=told):
        distill(source, out, replace(settings, **change), resume)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_another_source_is_refused(tmp_path: Path, source: str, settings: DistillSettings) -> None:
    out = tmp_path / "out"
    broken_off(source, out, settings, ("local", 1))
    Path(source).rename(tmp_path / "moved")
    with pytest.raises(RunMismatchError, match=r"\(differs in source\)"):
        distill(str(tmp_path / "moved"), out, settings, resume=True)


def test_a_run_of_an_older_version_goes_on(tmp_path: Path, source: str, settings: DistillSettings) -> None:
    out = tmp_path / "out"
    broken_off(source, out, settings, ("local", 3))
    path = out / "run/settings.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    del told["settings"]["precision"]
    path.write_text(json.dumps(told), encoding="utf-8")
    assert distill(source, out, settings, resume=True).is_of(settings)


@pytest.mark.parametrize("damage", ["[]", '{"source": "x"}', '{"settings": 3}'])
def test_settings_of_another_shape_are_said_so(
    tmp_path: Path, source: str, settings: DistillSettings, damage: str
) -> None:
    out = tmp_path / "out"
    broken_off(source, out, settings, ("local", 1))
    (out / "run/settings.json").write_text(damage, encoding="utf-8")
    with pytest.raises(FormatError, match="is damaged"):
        distill(source, out, settings, resume=True)


def test_damaged_settings_are_said_so(tmp_path: Path, source: str, settings: DistillSettings) -> None:
    out = tmp_path / "out"
    broken_off(source, out, settings, ("local", 1))
    path = out / "run/settings.json"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(FormatError, match="is damaged"):
        distill(source, out, settings, resume=True)


def test_a_damaged_checkpoint_is_said_so(tmp_path: Path, source: str, settings: DistillSettings) -> None:
    out = tmp_path / "out"
    broken_off(source, out, settings, ("local", 3))
    path = out / "run/checkpoints/local/tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FormatError, match="start the run anew"):
        distill(source, out, settings, resume=True)


def test_resuming_where_nothing_began_begins(tmp_path: Path, source: str, settings: DistillSettings) -> None:
    steps: list[float] = []

    def heard(stage: str, done: int, total: int, **figures: float) -> None:
        if stage == "local":
            steps.append(figures["steps"])
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        distill(source, tmp_path / "out", settings, resume=True, progress=heard)
    assert steps == [1]


def test_a_source_that_cannot_be_read_claims_no_folder(tmp_path: Path, settings: DistillSettings) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/config.json").write_text('{"model_type": "rwkv", "architectures": ["RwkvForCausalLM"]}')
    with pytest.raises(MindsetError):
        distill(str(tmp_path / "odd"), tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    assert issubclass(UnsupportedModelError, MindsetError)


def test_a_converted_folder_is_trained_on_as_it_is(
    tmp_path: Path, source: str, settings: DistillSettings
) -> None:
    converted, out = tmp_path / "converted", tmp_path / "out"
    convert(source, converted, ConversionPlan(k=3, layers="1", skip="lowrank:2"))
    before = model_folder.load(converted).state_dict()
    distill(str(converted), out, settings)
    student = model_folder.load(out)
    assert {layer: bank.k for layer, bank in banks(student).items()} == {1: 3}
    assert student.source == source
    after = student.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all(name.startswith("model.layers.1.mlp.") for name in changed)


def test_a_converted_folder_without_its_origin_cannot_be_distilled(
    tmp_path: Path, source: str, settings: DistillSettings, tokenizer: PreTrainedTokenizerFast
) -> None:
    converted = tmp_path / "converted"
    convert(source, converted, PLAN)
    student = model_folder.load(converted)
    student.source = None
    model_folder.save(student, tmp_path / "orphan", tokenizer)
    with pytest.raises(UsageError, match="does not say what it was made from"):
        distill(str(tmp_path / "orphan"), tmp_path / "out", settings)
