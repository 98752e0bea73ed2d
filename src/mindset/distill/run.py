"""A whole distillation: model, data, stages, report, in one run folder that can be resumed.

`out` becomes a mindset folder with its report; what the run needs to go on lies in `out/run`: `settings.json` (what this
run is; another configuration is refused), `progress.json` (stages that are done), `checkpoints/`, `tensorboard/`,
`cache/`. A finished stage's student is `checkpoints/NAME.done`. Does not know losses or how things are drawn.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mindset.distill import report as reports
from mindset.distill.checkpoint import read_checkpoint, write_checkpoint
from mindset.distill.data import open_mixture
from mindset.distill.fit_skip import fit_skips
from mindset.distill.loop import Progress, run_stage
from mindset.distill.mixture import SELF, DataItem, Mixture
from mindset.distill.schedule import Clock
from mindset.distill.seeds import named_seed
from mindset.distill.settings import DistillSettings
from mindset.distill.stages import EndToEndStage, HealStage, LocalStage, Stage
from mindset.errors import RunMismatchError, UsageError
from mindset.graft import folder as model_folder
from mindset.graft.calibration import calibrate, input_moments, needs_calibration
from mindset.graft.convert import build_student, keep_origin, source_name
from mindset.graft.model import MindsetModel, banks
from mindset.graft.sources import Loaded, load_teacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Run", "distill", "train"]


def _silent(*_: Any, **__: Any) -> None:
    """Progress for callers who want none."""


@dataclass
class Run:
    """What one distillation holds while it goes on."""

    teacher: Any
    student: Any
    tokenizer: Any
    settings: DistillSettings
    folder: Path
    """`out/run`."""
    resume: bool
    progress: Progress
    accelerator: str = "cpu"
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each finished stage."""
    steps: dict[str, int] = field(default_factory=dict)
    """Steps of each finished stage."""

    def data(self, stage: str, items: tuple[str, ...] | None = None) -> Mixture:
        """A fresh mixture for a stage; each stage draws its own samples and order."""
        return open_mixture(
            [DataItem.parse(item) for item in items or self.settings.data],
            self.tokenizer,
            batch=self.settings.batch,
            seq_len=self.settings.seq_len,
            seed=named_seed(self.settings.seed, stage),
            cache=self.folder / "cache",
            teacher=self.teacher,
            on_drawn=lambda n: self.progress(f"{stage}: drawing samples", n, None),
        )


def distill(
    source: str,
    out: Path,
    settings: DistillSettings,
    resume: bool = False,
    *,
    progress: Progress | None = None,
    device: str = "cpu",
) -> reports.Report:
    """Distil MODEL `source` (converted as `settings.plan` says, or a converted folder as it is) into `out`."""
    out, progress = Path(out), progress or _silent
    loaded, teacher = _load(source, device)
    run_folder = out / "run"
    _claim(run_folder, source, settings, resume)
    student = loaded.model if isinstance(loaded.model, MindsetModel) else _convert(teacher, settings)
    student.source = source_name(source, teacher.path) if teacher is loaded else student.source
    accelerator = "cpu" if device == "cpu" else "auto"
    run = Run(teacher.model, student, teacher.tokenizer, settings, run_folder, resume, progress, accelerator)
    before = reports.measure_before(student, teacher.model, teacher.tokenizer, run_folder, progress)
    uses = train(run)
    healed_teacher = _heal(run)
    model_folder.save(student, out, teacher.tokenizer)
    keep_origin(teacher.path, out)
    return reports.make_report(
        student=student,
        teacher=teacher.model,
        tokenizer=teacher.tokenizer,
        out=out,
        settings=settings,
        notes=teacher.notes,
        before=before,
        data=uses,
        seconds=run.seconds,
        steps=run.steps,
        healed_teacher=healed_teacher,
        progress=progress,
    )


def _load(source: str, device: str) -> tuple[Loaded, Loaded]:
    """The model to train and its teacher; one and the same where `source` is not converted yet."""
    loaded = load_teacher(source, device=device)
    if not isinstance(loaded.model, MindsetModel):
        return loaded, loaded
    origin = loaded.model.source
    if origin is None:
        raise UsageError(f"{source} does not say what it was made from; distil the original MODEL instead")
    return loaded, load_teacher(origin, device=device)


def _convert(teacher: Loaded, settings: DistillSettings) -> PreTrainedModel:
    return build_student(teacher.model, settings.plan).to(teacher.model.device)


def _claim(run: Path, source: str, settings: DistillSettings, resume: bool) -> None:
    """Make `run` this configuration's, or refuse."""
    path = run / "settings.json"
    ours = json.loads(json.dumps({"source": source, "settings": settings.to_json()}))
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if theirs != ours:
            changed = sorted(
                name
                for name in {*ours["settings"], *theirs.get("settings", {})}
                if ours["settings"].get(name) != theirs.get("settings", {}).get(name)
            )
            raise RunMismatchError(
                f"{run.parent} holds a run of another configuration (differs in {', '.join(changed) or 'source'}); "
                "give another --out, or the same settings with --resume"
            )
        if not resume:
            raise RunMismatchError(f"{run.parent} holds this run already; add --resume, or give another --out")
        return
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ours, indent=1), encoding="utf-8")


# ---- training ------------------------------------------------------------------------------------------------


def train(run: Run) -> list[Any]:
    """The local and the end-to-end stage; returns what each source of text gave."""
    settings, shares = run.settings, {}
    shares["local"] = settings.local_share
    shares["end_to_end"] = 1 - settings.local_share
    uses: list[Any] = []
    for name, share in shares.items():
        if share > 0:
            kind = LocalStage if name == "local" else EndToEndStage
            lr = settings.lr if name == "local" else settings.lr_end_to_end
            uses = _run_stage(run, kind, share, lr)
    return uses


def _run_stage(run: Run, kind: type[Stage], share: float, lr: float) -> list[Any]:
    settings, name = run.settings, kind.name
    steps = None if settings.steps is None else max(1, round(settings.steps * share))
    seconds = None if settings.minutes is None else settings.minutes * 60 * share
    clock = Clock(steps, seconds)
    data = run.data(name)
    done = run.folder / "checkpoints" / f"{name}.done"
    stage = kind(run.student, run.teacher, settings, clock, data, lr)
    if run.resume and done.exists():
        state = read_checkpoint(done)
        stage.load_state_dict(state["state_dict"], strict=False)
        clock.restore(state["clock"])
        data.load_state_dict(state["data"])
    else:
        started = not (run.resume and (run.folder / "checkpoints" / name).exists())
        if name == "local" and settings.fit_skip and started:
            fit_skips(run.student, run.teacher, [data.next_batch() for _ in range(2)])
        run_stage(stage, run.folder, resume=run.resume, progress=run.progress, accelerator=run.accelerator)
        _calibrate(run, data)
        final = {"state_dict": stage.state_dict(), "clock": clock.state(), "data": data.state_dict()}
        write_checkpoint(final, done)
        shutil.rmtree(run.folder / "checkpoints" / name, ignore_errors=True)
    run.seconds[name], run.steps[name] = clock.elapsed, clock.done
    clock.stop()
    return data.describe()


def _calibrate(run: Run, data: Mixture) -> None:
    """Measure again what proposers go by: training moved the keys."""
    held = banks(run.student)
    if any(needs_calibration(bank) for bank in held.values()):
        tokens = torch.cat([data.next_batch(), data.next_batch()])
        run.student.eval()
        calibrate(run.student, input_moments(run.student, tokens, tuple(held)))


def _heal(run: Run) -> Any | None:
    """Train student and teacher alike on the texts; returns the teacher so healed, None without healing."""
    settings = run.settings
    if not settings.heal_steps:
        return None
    texts = tuple(item for item in settings.data if DataItem.parse(item).source != SELF)
    if not texts:
        raise UsageError("healing needs text: add stdlib, a file or a folder to --data")
    twin = build_student(run.teacher, type(settings.plan)(layers=settings.plan.layers))
    for model in (run.student, twin):
        clock = Clock(settings.heal_steps, None)
        stage = HealStage(model, run.teacher, settings, clock, run.data("heal", texts), settings.lr_end_to_end / 5)
        began = time.monotonic()
        run_stage(stage, run.folder / ("heal-teacher" if model is twin else "heal"), resume=False, progress=run.progress)
        run.seconds["heal"], run.steps["heal"] = time.monotonic() - began, clock.done
    return twin

