"""The report of a distillation: what was measured, written beside the model as JSON, Markdown and pictures.

`report.json` has every figure, `report.md` tells them (`report_page`), `gap_by_k.png` and `fvu.png` draw them
(`plots`). The teacher's own held-out samples are scored as text like the others. Does not know how the student was
trained.
Invariant: `report.json` is written last, so where it is the report is complete.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.atomic_file import replacing
from mindset.distill import plots, report_page
from mindset.distill.gap_curve import Look, Progress, affordable_windows, look, measure_before
from mindset.distill.mixture import SourceUse
from mindset.distill.seeds import named_seed
from mindset.distill.self_samples import SampleSettings, SelfSamples
from mindset.distill.settings import DistillSettings, completed
from mindset.errors import FormatError, MissingError
from mindset.graft.model import banks
from mindset.probe.bits import score
from mindset.probe.evaluation import default_texts, evaluate_models
from mindset.probe.generate import continue_text
from mindset.probe.sizes import bytes_on_disk, context_length
from mindset.probe.windows import Windows

__all__ = ["Report", "make_report", "measure_before", "own_text"]

REPORT_VERSION = 1
JSON, PAGE, GAP_PICTURE, FVU_PICTURE = "report.json", "report.md", "gap_by_k.png", "fvu.png"
OWN_SAMPLES = "own_samples"
PROMPTS = ("The capital of France is", "Once upon a time", "The easiest way to learn is")
NEW_TOKENS = 40
SCORED_WORK = 5.2e11
"""Parameters times tokens of each text: 4,096 tokens of a model with 135 million parameters."""
OWN_LENGTH = 128
"""Tokens of an own sample: the time that drawing takes goes by the length, not by how many are drawn."""
SPEED_PAIRS, SPEED_TOKENS = 4, 32
"""Pairs of decodings in turn, and new tokens of each."""

Texts = Mapping[str, tuple[str, int]]
"""By name: a text, and the length of its windows."""


@dataclass(frozen=True)
class Report:
    """A report that has been written."""

    folder: Path
    """The model's folder, which holds it."""
    figures: dict[str, Any]
    """All of it as plain data, as in `report.json`."""

    @property
    def path(self) -> Path:
        """The page for people."""
        return self.folder / PAGE

    def to_json(self) -> dict[str, Any]:
        """The figures, and where they lie."""
        return {"folder": str(self.folder), **self.figures}

    def to_text(self) -> str:
        """A short summary for a terminal."""
        return f"{report_page.summary(self.figures)}\n\nThe whole report: {self.path}"

    def is_of(self, settings: DistillSettings) -> bool:
        """Whether these settings are the ones it reports on."""
        return bool(completed(self.figures["settings"]) == json.loads(json.dumps(settings.to_json())))

    @classmethod
    def read(cls, folder: str | Path) -> Report:
        """The report in a model folder."""
        path = Path(folder) / JSON
        try:
            figures = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MissingError(
                f"{folder} holds no report; `mindset distill` writes one when it ends"
            ) from None
        except ValueError as error:
            raise FormatError(
                f"{path} is damaged ({error}); run the distillation again with --resume"
            ) from error
        if not isinstance(figures, dict) or figures.get("version") != REPORT_VERSION:
            raise FormatError(
                f"{path} was not written by this release; run the distillation again with --resume"
            )
        return cls(Path(folder), figures)


def make_report(
    *,
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    settings: DistillSettings,
    notes: Sequence[str] = (),
    teacher_bytes_on_disk: int | None = None,
    before: Look | None = None,
    data: Sequence[SourceUse] = (),
    seconds: Mapping[str, float] | None = None,
    steps: Mapping[str, int] | None = None,
    healed_teacher: PreTrainedModel | None = None,
    texts: Texts | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure `student` beside `teacher` and write the report into `out`, where the student is saved already.

    `texts` None: the text that ships with Python, as much of it as takes a minute or so on two cores.
    """
    tell = progress or _silent
    own = own_text(teacher, tokenizer, settings.seed, out / "run" / "cache", tell)
    cut = {
        name: (_beginning(text, length, teacher, tokenizer), length)
        for name, (text, length) in (default_texts() if texts is None else texts).items()
    } | {OWN_SAMPLES: own}
    measured = evaluate_models(
        student,
        teacher,
        tokenizer,
        cut,
        name=Path(out).name,
        teacher_name=_teacher_name(student),
        speed_pairs=SPEED_PAIRS,
        speed_tokens=SPEED_TOKENS,
        seed=settings.seed,
        progress=lambda stage, done, total: tell(f"report: {stage}", done, total),
        notes=notes,
        bytes_on_disk=bytes_on_disk(out),
        teacher_bytes_on_disk=teacher_bytes_on_disk,
    ).to_json()
    after = look(student, teacher, tokenizer, label="trained", progress=tell)
    figures = {
        "version": REPORT_VERSION,
        "evaluation": measured,
        "looks": {"untrained": before and before.to_json(), "trained": after.to_json()},
        "memory": _memory(student, teacher),
        "continuations": _continuations(student, teacher, tokenizer, tell),
        "healing": _healing(healed_teacher, tokenizer, cut, settings, measured),
        "stages": {
            name: {"steps": count, "seconds": round((seconds or {}).get(name, math.nan), 1)}
            for name, count in (steps or {}).items()
        },
        "data": [asdict(use) for use in data],
        "seed": settings.seed,
        "settings": settings.to_json(),
        "environment": _environment(),
        "pictures": {"gap_by_k": GAP_PICTURE, "fvu": FVU_PICTURE},
    }
    report = Report(out, json.loads(json.dumps(_finite(figures))))
    _draw(report, before, after, tuple(banks(student)))
    _write(out / PAGE, report_page.page(report.figures))
    _write(out / JSON, json.dumps(report.figures, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return report


def own_text(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    cache: Path,
    progress: Progress | None = None,
) -> tuple[str, int]:
    """Samples of the teacher that no training draws, as text, and the length of its windows."""
    tell = progress or _silent
    length = min(OWN_LENGTH, context_length(teacher))
    rows = min(64, affordable_windows(teacher, length, SCORED_WORK / 2))
    samples = SelfSamples(
        teacher,
        tokenizer,
        SampleSettings(length=length, batch=rows, seed=named_seed(seed, "held out")),
        seq_len=length,
        cache=cache,
        on_drawn=_counted(tell, rows * (length - 1)),
    )
    texts = tokenizer.batch_decode(samples.take(rows).tolist(), skip_special_tokens=True)
    return "\n\n".join(texts), length


def _counted(tell: Progress, total: int) -> Any:
    done = 0

    def more(n: int) -> None:
        nonlocal done
        done += n
        tell("report: the teacher's own samples", done, total)

    return more


def _beginning(text: str, length: int, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """As many windows of a text as can be afforded."""
    windows = Windows.of(text, tokenizer, min(length, context_length(teacher)))
    few = affordable_windows(teacher, windows.length, SCORED_WORK)
    if few >= len(windows):
        return text
    return text.encode()[: int(windows.first(few).token_bytes.sum())].decode(errors="ignore")


def _teacher_name(student: PreTrainedModel) -> str:
    source = getattr(student, "source", None)
    return "its teacher" if source is None else Path(source).name


def _memory(student: PreTrainedModel, teacher: PreTrainedModel) -> dict[str, Any]:
    """What the memory is: slots, and which of their bytes have to be in RAM."""
    held = banks(student)
    first = next(iter(held.values()))
    resident = movable = 0
    for bank in held.values():
        for name, rows in bank.slot_parameters():
            if name.rpartition(".")[2] in ("value", "modulator"):
                movable += rows.nbytes
            else:
                resident += rows.nbytes
    return {
        "kind": first.kind,
        "layers": len(held),
        "layers_in_all": int(teacher.config.get_text_config().num_hidden_layers),
        "slots": sum(bank.n_slots * bank.n_heads for bank in held.values()),
        "slots_per_layer": first.n_slots * first.n_heads,
        "heads": first.n_heads,
        "k": first.effective_k(),
        "key_bytes": resident,
        "value_and_modulator_bytes": movable,
    }


def _continuations(
    student: PreTrainedModel, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tell: Progress
) -> list[dict[str, str]]:
    told = []
    for index, prompt in enumerate(PROMPTS):
        tell("report: continuations", index, len(PROMPTS))
        ours, theirs = (
            "".join(continue_text(model, tokenizer, prompt, max_tokens=NEW_TOKENS))
            for model in (student, teacher)
        )
        told.append({"prompt": prompt, "teacher": theirs, "student": ours})
    tell("report: continuations", len(PROMPTS), len(PROMPTS))
    return told


def _healing(
    healed_teacher: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    settings: DistillSettings,
    measured: dict[str, Any],
) -> dict[str, Any] | None:
    """The teacher given the same healing as the student, beside it."""
    if healed_teacher is None:
        return None
    students = {text["name"]: text["bits_per_byte"] for text in measured["texts"]}
    rows = {}
    for name, (text, length) in texts.items():
        windows = Windows.of(text, tokenizer, min(length, context_length(healed_teacher)))
        bits = score(healed_teacher, windows).bits_per_byte
        rows[name] = {"teacher_bits_per_byte": bits, "gap": students[name] - bits}
    return {"steps": settings.heal_steps, "texts": rows}


def _environment() -> dict[str, Any]:
    return {
        "mindset": version("mindset-lm"),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }


def _draw(report: Report, before: Look | None, after: Look, layers: tuple[int, ...]) -> None:
    curves = {} if before is None else {"untrained": before.gaps}
    curves[f"trained at k = {report.figures['memory']['k']:,}"] = after.gaps
    picture = plots.gap_by_k(curves, n_slots=after.n_slots, teacher_bits=after.teacher_bits_per_byte)
    plots.save(picture, report.folder / GAP_PICTURE)
    picture = plots.fvu_per_layer(layers, None if before is None else before.fvu, after.fvu)
    plots.save(picture, report.folder / FVU_PICTURE)


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def _finite(value: Any) -> Any:
    """The same with null in place of what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _silent(*_: object, **__: object) -> None:
    """Progress for callers who want none."""
