"""A quick look at a student: its gap at several k, and each layer's fvu, on a few thousand tokens.

Taken before and after training, on the same windows, it shows what training won back. The tokens are few, so that a
look takes a minute where a whole evaluation takes many; its intervals say how rough it is. Does not know training.
Invariant: looking changes nothing; a look that is in the run folder is not taken again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.atomic_file import replacing
from mindset.graft.bank import Bank
from mindset.graft.model import MindsetModel, banks, reading
from mindset.probe.bits import score
from mindset.probe.bootstrap import Interval, gap_interval
from mindset.probe.sizes import context_length
from mindset.probe.texts import SCORED
from mindset.probe.use import watch_fvu
from mindset.probe.windows import Windows

__all__ = ["Look", "affordable_windows", "look", "measure_before", "usual_ks"]

Progress = Callable[..., None]
LOOK_WORK = 2.6e11
"""Parameters times tokens of a look's text: 2,048 tokens of a model with 135 million parameters."""
LOOK_VERSION = 1


@dataclass(frozen=True)
class Look:
    """What a look saw."""

    text: str
    """Name of the text."""
    tokens: int
    """Scored tokens."""
    teacher_bits_per_byte: float
    """The teacher's."""
    n_slots: int
    """Slots of the smallest bank: the largest k."""
    gaps: dict[int, Interval]
    """Gap in bits per byte by k, with its interval paired over windows; `n_slots` reads all."""
    fvu: tuple[float, ...]
    """Fraction of variance unexplained of each bank at its own k, ascending by layer."""

    def to_json(self) -> dict[str, Any]:
        """The look as plain data."""
        return asdict(self) | {"gaps": {str(k): asdict(gap) for k, gap in self.gaps.items()}}

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Look:
        """The look that `to_json` wrote."""
        gaps = {int(k): Interval(**gap) for k, gap in data["gaps"].items()}
        return cls(**data | {"gaps": gaps, "fvu": tuple(data["fvu"])})


def measure_before(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    run_folder: Path,
    progress: Progress | None = None,
) -> Look:
    """Look at an untrained student; the look is kept in `run_folder` for a run that is resumed."""
    path = run_folder / "untrained.json"
    identity = json.loads(json.dumps({"version": LOOK_VERSION, "parts": cast(MindsetModel, student).parts}))
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("of") == identity:
        return Look.of_json(kept["look"])
    seen = look(student, teacher, tokenizer, label="untrained", progress=progress)
    run_folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(json.dumps({"of": identity, "look": seen.to_json()}, indent=1).encode())
    return seen


def look(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    label: str = "student",
    progress: Progress | None = None,
) -> Look:
    """Score `student` at several k and `teacher` on the first windows of Python's own help topics."""
    text = next(text for text in SCORED if text.file is None)
    length = min(text.window, context_length(teacher), context_length(student))
    windows = Windows.of(text.read(), tokenizer, length)
    windows = windows.first(min(len(windows), affordable_windows(teacher, length, LOOK_WORK)))
    ks = usual_ks(student)
    tell = progress or _silent
    with watch_fvu(student, teacher) as unexplained:
        taught = score(teacher, windows, progress=_part(tell, f"{label}: teacher and fvu"))
    gaps = {}
    for k in ks:
        with reading(student, k if k < ks[0] else None):
            name = f"{label}: k = {k if k < ks[0] else 'all'}"
            ours = score(student, windows, progress=_part(tell, name))
        gaps[k] = gap_interval(ours.nll, taught.nll, taught.n_bytes)
    per_layer = tuple(unexplained.per_layer)
    return Look(text.name, taught.tokens, taught.bits_per_byte, ks[0], gaps, per_layer)


def affordable_windows(model: PreTrainedModel, length: int, work: float) -> int:
    """Windows of `length` tokens for about `work` parameters times tokens, at least 4."""
    return max(4, math.ceil(work / max(1, model.num_parameters()) / length))


def usual_ks(student: PreTrainedModel) -> tuple[int, ...]:
    """The ks of a look, descending: all, a half, a quarter, an eighth of the slots, and the student's own."""
    held = list(banks(student).values())
    most = min(_most(bank) for bank in held)
    own = {min(bank.effective_k(), most) for bank in held[:1]}
    return tuple(sorted({max(1, most // share) for share in (1, 2, 4, 8)} | own, reverse=True))


def _most(bank: Bank) -> int:
    """Slots that can be read at once: all, or as many as are proposed."""
    proposer = getattr(bank, "propose", None)
    return (proposer.candidates if proposer is not None else 0) or bank.n_slots


def _part(progress: Progress, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(stage, done, total)


def _silent(*_: object, **__: object) -> None:
    """Progress for callers who want none."""
