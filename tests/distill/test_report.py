from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mindset.distill import gap_curve, report
from mindset.distill.gap_curve import Look, affordable_windows, look, measure_before, usual_ks
from mindset.distill.mixture import SourceUse
from mindset.distill.report_page import page, summary
from mindset.distill.settings import DistillSettings
from mindset.errors import FormatError, MissingError
from mindset.graft import folder
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan

SETTINGS = DistillSettings(plan=ConversionPlan(k=6), steps=3, data=("self", "words.txt=2"))
TEXT = ("In winter the harbour froze, and nobody wrote letters until spring.\n" * 30, 512)


@pytest.fixture(scope="module", autouse=True)
def little_text() -> Iterator[None]:
    """Windows enough for a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gap_curve, "LOOK_WORK", 1.0)
        patch.setattr(report, "SCORED_WORK", 1.0)
        patch.setattr(report, "SPEED_PAIRS", 1)
        yield


@pytest.fixture(scope="module")
def student(teacher: LlamaForCausalLM) -> Any:
    student = build_student(teacher, SETTINGS.plan)
    student.source = "smollm2"
    return student


@pytest.fixture(scope="module")
def written(
    little_text: None,
    teacher: LlamaForCausalLM,
    student: Any,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> report.Report:
    """Of a student that was not trained; no test changes it."""
    return write(teacher, student, tokenizer, tmp_path_factory.mktemp("written"))


def write(
    teacher: Any, student: Any, tokenizer: PreTrainedTokenizerFast, out: Path, **changes: Any
) -> report.Report:
    folder.save(student, out, tokenizer)
    arguments: dict[str, Any] = {
        "student": student,
        "teacher": teacher,
        "tokenizer": tokenizer,
        "out": out,
        "settings": SETTINGS,
        "notes": ("The weights are those of a 4-bit file.",),
        "before": measure_before(student, teacher, tokenizer, out / "run"),
        "data": [
            SourceUse("self", 1 / 3, 1000, 1000, None, 1.0),
            SourceUse("words.txt", 2 / 3, 2000, 900, 900, 2.2),
        ],
        "seconds": {"local": 1.5, "end_to_end": 2.0},
        "steps": {"local": 1, "end_to_end": 2},
        "texts": {"letters": TEXT},
    }
    return report.make_report(**arguments | changes)


# ---- the look ------------------------------------------------------------------------------------------------


def test_an_untrained_mirror_loses_nothing_at_all_and_is_left_as_it_was(
    teacher: LlamaForCausalLM, student: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    seen = look(student, teacher, tokenizer)
    assert tuple(seen.gaps) == (24, 12, 6, 3)
    assert abs(seen.gaps[24].estimate) < 1e-6
    assert seen.n_slots == 24
    assert len(seen.fvu) == 2
    assert [bank.k for bank in banks(student).values()] == [6, 6]
    assert Look.of_json(json.loads(json.dumps(seen.to_json()))) == seen


@pytest.mark.parametrize(
    ("plan", "ks"),
    [
        (ConversionPlan(k=5), (24, 12, 6, 5, 3)),
        (ConversionPlan(), (24, 12, 6, 3)),
        (ConversionPlan(k=4, propose="score", candidates=16), (16, 8, 4, 2)),
        (ConversionPlan(bank="featural", slots=4, k=2), (4, 2, 1)),
    ],
)
def test_usual_ks_never_exceed_what_can_be_read(
    plan: ConversionPlan, ks: tuple[int, ...], teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    student = build_student(teacher, plan, calibration=torch.arange(64).reshape(2, 32))
    assert usual_ks(student) == ks
    assert tuple(look(student, teacher, tokenizer).gaps) == ks


def test_the_look_before_training_is_taken_once(
    teacher: LlamaForCausalLM, student: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    told: list[str] = []

    def tell(stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        told.append(stage)

    first = measure_before(student, teacher, tokenizer, tmp_path, tell)
    assert dict.fromkeys(told) == dict.fromkeys(
        ["untrained: teacher and fvu", *(f"untrained: k = {k}" for k in ("all", 12, 6, 3))]
    )
    told.clear()
    assert measure_before(student, teacher, tokenizer, tmp_path, tell) == first
    assert told == []
    other = build_student(teacher, ConversionPlan(k=5))
    assert 5 in measure_before(other, teacher, tokenizer, tmp_path).gaps


def test_a_large_model_is_scored_on_less(teacher: LlamaForCausalLM) -> None:
    n = teacher.num_parameters()
    assert affordable_windows(teacher, 10, n * 95.0) == 10
    assert affordable_windows(teacher, 10, 0.0) == 4


# ---- the report ----------------------------------------------------------------------------------------------


def test_everything_is_measured_and_read_back(written: report.Report) -> None:
    figures = written.figures
    assert report.Report.read(written.folder) == written
    assert written.to_json()["folder"] == str(written.folder)
    assert [text["name"] for text in figures["evaluation"]["texts"]] == ["letters", "own_samples"]
    assert figures["evaluation"]["teacher"] == "smollm2"
    assert figures["looks"]["untrained"]["gaps"].keys() == figures["looks"]["trained"]["gaps"].keys()
    assert figures["settings"]["plan"]["k"] == 6
    assert figures["stages"]["end_to_end"] == {"steps": 2, "seconds": 2.0}
    assert figures["data"][1]["passes"] == 2.2
    assert figures["healing"] is None
    memory, d_model, layers, slots = figures["memory"], 16, 2, 24
    assert memory["slots"] == layers * slots
    assert memory["key_bytes"] == layers * slots * d_model * 4
    assert memory["value_and_modulator_bytes"] == 2 * memory["key_bytes"]
    assert len(figures["continuations"]) == 3
    for picture in figures["pictures"].values():
        assert (written.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_the_figures_of_an_untrained_student_before_and_after_are_the_same(written: report.Report) -> None:
    looks = written.figures["looks"]
    assert looks["untrained"] == looks["trained"]


def test_the_first_five_lines_tell_what_happened(written: report.Report) -> None:
    title, blank, made, lost, at_home, buys, costs, after = written.path.read_text("utf-8").splitlines()[:8]
    assert title.startswith("# ")
    assert blank == after == ""
    assert "24 slots, of which 6 answer" in made
    letters, own = written.figures["evaluation"]["texts"]
    assert f"**{letters['bits_per_byte']:.3f} bits per byte**" in lost
    assert f"{letters['teacher_bits_per_byte']:.3f}" in lost
    assert f"{own['top1_agreement']:.0%}" in at_home
    assert buys.startswith("**What it buys:**")
    assert "can leave RAM" in buys
    assert costs.startswith("**What it costs:**")
    assert "2,304 parameters" in costs
    assert "times the teacher's speed" in costs


def test_every_table_is_a_table_and_every_setting_is_told(written: report.Report) -> None:
    text = written.path.read_text("utf-8")
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(blocks) >= 7
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block}) == 1
    for name in [*SETTINGS.to_json(), *SETTINGS.to_json()["plan"]]:
        assert f"`{name}`" in text or f"`plan.{name}`" in text or name == "plan"
    assert "> The weights are those of a 4-bit file." in text
    assert "![" in text
    assert "(gap_by_k.png)" in text
    assert "(fvu.png)" in text


def test_the_summary_is_short_and_names_the_page(written: report.Report) -> None:
    told = written.to_text()
    assert len(told.splitlines()) < 20
    assert max(len(line) for line in told.splitlines()[:-1]) <= 96
    assert str(written.path) in told
    assert "**" not in told


def test_a_healed_teacher_stands_beside_its_student(
    teacher: LlamaForCausalLM, student: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    written = write(teacher, student, tokenizer, tmp_path, healed_teacher=teacher)
    letters = written.figures["evaluation"]["texts"][0]
    healed = written.figures["healing"]["texts"]["letters"]
    assert math.isclose(healed["teacher_bits_per_byte"], letters["teacher_bits_per_byte"], abs_tol=1e-6)
    assert math.isclose(healed["gap"], letters["gap"], abs_tol=1e-6)
    assert "teacher, healed alike" in written.path.read_text("utf-8")


def test_what_was_not_measured_is_a_dash(written: report.Report) -> None:
    figures = json.loads(json.dumps(written.figures))
    figures["looks"]["untrained"] = None
    figures["evaluation"] |= dict.fromkeys(("speed_ratio", "tokens_per_second", "teacher_tokens_per_second"))
    figures["looks"]["trained"]["fvu"] = [None, None]
    text = page(figures)
    assert "its speed was not measured" in text
    assert "None" not in text
    assert "training took it" not in text
    assert "its speed was not" in summary(figures)


def test_the_teachers_own_samples_are_held_out_and_always_the_same(
    teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    drawn = [report.own_text(teacher, tokenizer, seed, tmp_path) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][1] == 64
    assert "<s>" not in drawn[0][0]


def test_a_folder_without_a_report_or_with_a_damaged_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="holds no report"):
        report.Report.read(tmp_path)
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match="is damaged"):
        report.Report.read(tmp_path)
    (tmp_path / "report.json").write_text('{"version": 99}', encoding="utf-8")
    with pytest.raises(FormatError, match="not written by this release"):
        report.Report.read(tmp_path)


def test_a_report_knows_its_settings(written: report.Report) -> None:
    assert written.is_of(SETTINGS)
    assert not written.is_of(DistillSettings(steps=3))
