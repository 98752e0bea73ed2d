"""A student measured beside its teacher: protocol bpb-1, what its memory does, speed and sizes, in one result.

`evaluate` takes names and files, `evaluate_models` what is loaded already. Single figures pool all texts (sums of bits
over sums of bytes); each text has its own beside them. Does not know training or how results are shown.

Invariant: both models are scored on the same windows of the same tokens, in the same dtype, in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mindset.errors import DataError, MindsetError, MissingError, UsageError
from mindset.graft.counting import counting, folder_of
from mindset.graft.model import MindsetModel, banks, dense_parameters, memory_parameters, without_memory
from mindset.graft.plain import first_line
from mindset.graft.sources import Loaded, load_teacher
from mindset.probe.agreement import Comparison, compare
from mindset.probe.bits import Scores, score
from mindset.probe.figures import Evaluation, TextFigures
from mindset.probe.sizes import bytes_in_ram, bytes_on_disk, context_length
from mindset.probe.speed import decode_ratio
from mindset.probe.texts import SCORED
from mindset.probe.use import watch_fvu, watch_slots
from mindset.probe.windows import Windows

__all__ = ["Evaluation", "TextFigures", "default_texts", "evaluate", "evaluate_models"]

Progress = Callable[[str, int, int], None]
WINDOW = 512
PROMPT_TOKENS, NEW_TOKENS = 64, 128
"""Of the speed measurement, where the model's context allows."""


def evaluate(
    folder: str | Path,
    *,
    against: str | Path | None = None,
    texts: Iterable[str | Path] = (),
    progress: Progress | None = None,
    speed_pairs: int = 5,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    seed: int = 0,
    count: bool = False,
    decay: float | None = None,
) -> Evaluation:
    """Measure the model in `folder` (any MODEL) against its teacher.

    `against` None: the MODEL that the folder was made from. `texts` are files, scored whole; none: `default_texts()`.
    `speed_pairs=0` leaves the speed out. Both models compute in `dtype` (None: float32). With `count`, what the student
    reads of the texts is counted in its folder, with `decay` as lambda of LRFU (None: the memory's, or the usual one).
    """
    wanted = {name: (text, WINDOW) for name, text in _read(texts).items()} or default_texts()
    student = load_teacher(str(folder), dtype=dtype, device=device)
    teacher = _teacher(student, against, dtype, device)
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        raise UsageError(
            f"{student.name} and {teacher.name} have different tokenizers; only models over one vocabulary can be "
            "compared: give the teacher of this model with --against"
        )
    return evaluate_models(
        student.model,
        teacher.model,
        student.tokenizer,
        wanted,
        name=student.name,
        teacher_name=teacher.name,
        speed_pairs=speed_pairs,
        seed=seed,
        progress=progress,
        notes=(*student.notes, *teacher.notes),
        meanwhile=counting(student.model, folder_of(student), decay=decay) if count else None,
        bytes_on_disk=bytes_on_disk(student.path) if student.path else student.file_bytes,
        teacher_bytes_on_disk=teacher.file_bytes,
    )


def default_texts() -> dict[str, tuple[str, int]]:
    """What is scored where nothing is said: the range of Python's own help topics that bpb-1 scores."""
    text = next(text for text in SCORED if text.file is None)
    return {text.name: (text.read(), text.window)}


def evaluate_models(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, tuple[str, int]],
    *,
    name: str = "student",
    teacher_name: str = "teacher",
    batch_tokens: int = 2048,
    speed_pairs: int = 5,
    speed_tokens: int = NEW_TOKENS,
    seed: int = 0,
    progress: Progress | None = None,
    notes: Iterable[str] = (),
    meanwhile: AbstractContextManager[None] | None = None,
    bytes_on_disk: int | None = None,
    teacher_bytes_on_disk: int | None = None,
) -> Evaluation:
    """Measure `student` beside `teacher` on `texts`: by name, a text and the length of its windows.

    Windows longer than the context of a model are cut to it. Speed is that of `speed_tokens` new tokens, the median of
    `speed_pairs` pairs of runs. `meanwhile` is open while the texts are scored with memory.
    """
    if not texts:
        raise UsageError("no text was given to score; give at least one")
    longest = min(context_length(student), context_length(teacher))
    cut = {
        label: Windows.of(text, tokenizer, min(length, longest)) for label, (text, length) in texts.items()
    }
    held, measured = banks(student), {}
    with meanwhile or nullcontext(), watch_slots(student) as use, watch_fvu(student, teacher) as unexplained:
        for label, windows in cut.items():
            told = _stage(progress, f"{label}: both models")
            measured[label] = compare(student, teacher, windows, batch_tokens, progress=told)
    without = {}
    for label, windows in cut.items() if held else ():
        told = _stage(progress, f"{label}: without memory")
        with without_memory(student):
            without[label] = score(student, windows, batch_tokens, progress=told)
    speed = None
    if speed_pairs:
        ids = next(iter(cut.values())).ids
        prompt = torch.from_numpy(ids[: max(2, min(PROMPT_TOKENS, longest // 2))])
        steps = min(speed_tokens, longest - len(prompt))
        if progress is not None:
            progress("decoding in turn", 0, 1)
        speed = decode_ratio(student, teacher, prompt, steps, pairs=speed_pairs)
    return Evaluation(
        name=name,
        teacher=teacher_name,
        pooled=_pooled(cut, measured, without, seed),
        texts=tuple(
            _figures(label, cut[label].length, measured[label], without.get(label), seed) for label in cut
        ),
        fvu=tuple(unexplained.per_layer),
        slot_use=tuple(use.per_layer),
        layers=tuple(held),
        k=tuple(bank.k for bank in held.values()),
        dense_parameters=dense_parameters(student),
        teacher_dense_parameters=dense_parameters(teacher),
        memory_parameters=memory_parameters(student),
        bytes_in_ram=bytes_in_ram(student),
        teacher_bytes_in_ram=bytes_in_ram(teacher),
        bytes_on_disk=bytes_on_disk,
        teacher_bytes_on_disk=teacher_bytes_on_disk,
        speed=speed,
        seed=seed,
        settings=_settings(student, batch_tokens),
        notes=tuple(dict.fromkeys(notes)),
    )


def _read(paths: Iterable[str | Path]) -> dict[str, str]:
    """Texts by file name, or by path where names are not distinct."""
    files = [Path(path) for path in paths]
    names = [file.name for file in files]
    read = {}
    for file in dict.fromkeys(files):
        try:
            # Bytes first: reading as text would turn \r\n into \n and so change the count of bytes.
            text = file.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); convert it"
            ) from error
        except FileNotFoundError as error:
            raise MissingError(f"no such file: {file}") from error
        read[file.name if names.count(file.name) == 1 else str(file)] = text
    return read


def _teacher(student: Loaded, against: str | Path | None, dtype: torch.dtype | None, device: str) -> Loaded:
    if against is not None:
        return load_teacher(str(against), dtype=dtype, device=device)
    if not isinstance(student.model, MindsetModel):
        raise UsageError(
            f"{student.name} has no memory and names no teacher; say what to measure it against with --against MODEL"
        )
    source = student.model.source
    if source is None:
        raise UsageError(
            f"{student.name} does not say what it was made from; give its teacher with --against MODEL"
        )
    try:
        return load_teacher(source, dtype=dtype, device=device)
    except (MindsetError, OSError) as error:
        raise MissingError(
            f"{student.name} was made from {source}, which cannot be loaded ({first_line(error)}); "
            "give its teacher with --against MODEL"
        ) from error


def _stage(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(stage, done, total)


def _figures(label: str, window: int, compared: Comparison, without: Scores | None, seed: int) -> TextFigures:
    student, teacher = compared.student, compared.teacher
    ours, theirs, gap = (
        student.interval(seed=seed),
        teacher.interval(seed=seed),
        compared.gap_interval(seed=seed),
    )
    return TextFigures(
        name=label,
        window=window,
        windows=len(student.nll),
        tokens=student.tokens,
        bytes=int(student.n_bytes.sum()),
        bits_per_byte=student.bits_per_byte,
        interval=(ours.low, ours.high),
        teacher_bits_per_byte=teacher.bits_per_byte,
        teacher_interval=(theirs.low, theirs.high),
        gap=compared.gap,
        gap_interval=(gap.low, gap.high),
        no_memory_bits_per_byte=None if without is None else without.bits_per_byte,
        kl=compared.kl,
        top1_agreement=compared.top1_agreement,
    )


def _pooled(
    cut: Mapping[str, Windows], measured: Mapping[str, Comparison], without: Mapping[str, Scores], seed: int
) -> TextFigures:
    together = Comparison(
        _joined([comparison.student for comparison in measured.values()]),
        _joined([comparison.teacher for comparison in measured.values()]),
        np.concatenate([comparison.window_kl for comparison in measured.values()]),
        np.concatenate([comparison.window_agreed for comparison in measured.values()]),
    )
    lengths = {windows.length for windows in cut.values()}
    window = lengths.pop() if len(lengths) == 1 else 0
    return _figures("all texts", window, together, _joined(list(without.values())) if without else None, seed)


def _joined(scores: list[Scores]) -> Scores:
    parts = ("nll", "n_bytes", "n_tokens")
    return Scores(*(np.concatenate([getattr(score, part) for score in scores]) for part in parts))


def _settings(student: PreTrainedModel, batch_tokens: int) -> dict[str, Any]:
    return {
        "protocol": "bpb-1",
        "dtype": str(student.dtype).removeprefix("torch."),
        "device": str(student.device),
        "threads": torch.get_num_threads(),
        "attention": getattr(student.config, "_attn_implementation", None),
        "batch_tokens": batch_tokens,
    }
