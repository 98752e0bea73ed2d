"""A whole distillation: model, data, stages, report, in one run folder that can be resumed.

`out` becomes a mindset folder with its report; what the run needs to go on lies in `out/run`: `settings.json` (what
this run is; another configuration is refused), `checkpoints/` (of the stage under way, and the student of each finished
one), `tensorboard/`, `cache/`. Does not know stages or losses (`training`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mindset.atomic_file import replacing
from mindset.distill import report as reports
from mindset.distill.loop import Progress
from mindset.distill.ranks import ranks
from mindset.distill.settings import DistillSettings, completed
from mindset.distill.training import Run, heal, silent, train
from mindset.errors import FormatError, RunMismatchError, UsageError
from mindset.graft import folder as model_folder
from mindset.graft.convert import build_student, keep_origin, source_name
from mindset.graft.model import MindsetModel
from mindset.graft.sources import Loaded, load_teacher

__all__ = ["distill"]


def distill(
    source: str,
    out: Path,
    settings: DistillSettings,
    resume: bool = False,
    *,
    progress: Progress | None = None,
    device: str = "cpu",
) -> reports.Report | None:
    """Distil MODEL `source` (converted as `settings.plan` says, or a converted folder as it is) into `out`.

    Under torchrun all processes train one student; the first returns the report, the others None.
    """
    out, progress, first = Path(out), progress or silent, ranks().first
    progress = progress if first else silent
    if not first and device == "cuda":
        device = f"cuda:{ranks().local_rank}"
    loaded, teacher = _load(source, device)
    run_folder = out / "run"
    if first:
        _claim(run_folder, source, settings, resume)
    student: Any = loaded.model
    if teacher is loaded:
        student = build_student(teacher.model, settings.plan)
        student.source = source_name(source, teacher.path)
    run = Run(teacher.model, student, teacher.tokenizer, settings, run_folder, resume, progress, device)
    before = None
    if first:
        before = reports.measure_before(student, teacher.model, teacher.tokenizer, run_folder, progress)
    uses = train(run)
    healed_teacher = heal(run)
    if not first:
        return None
    model_folder.save(student, out, teacher.tokenizer)
    keep_origin(teacher.path, out)
    return reports.make_report(
        student=student,
        teacher=teacher.model,
        tokenizer=teacher.tokenizer,
        out=out,
        settings=settings,
        notes=teacher.notes,
        teacher_bytes_on_disk=teacher.file_bytes,
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


def _claim(run: Path, source: str, settings: DistillSettings, resume: bool) -> None:
    """Make `run` this configuration's, or refuse."""
    path = run / "settings.json"
    ours = json.loads(json.dumps({"source": source, "settings": settings.to_json()}))
    if path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            theirs["settings"] = completed(theirs["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path} is damaged ({error}); give another --out") from error
        if changed := _differences(ours, theirs):
            raise RunMismatchError(
                f"{run.parent} holds a run of another configuration (differs in {', '.join(changed)}); "
                "give another --out, or the same settings with --resume"
            )
        if not resume:
            raise RunMismatchError(
                f"{run.parent} holds this run already; add --resume, or give another --out"
            )
        return
    run.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(json.dumps(ours, indent=1).encode())


def _differences(ours: Any, theirs: Any, name: str = "") -> list[str]:
    """Names of what differs between two nests of settings, the innermost ones: `steps`, `plan.k`."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [name.removeprefix(".settings").removeprefix(".") or "settings"]
    names = [*ours, *(key for key in theirs if key not in ours)]
    return [line for key in names for line in _differences(ours.get(key), theirs.get(key), f"{name}.{key}")]
