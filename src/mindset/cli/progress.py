"""Progress on stderr: a bar for each stage on a terminal, a line for each tenth elsewhere.

Does not know what is being done. Invariant: nothing goes to stdout, and nothing at all where the caller asked
for silence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["Report", "fractions", "progress"]


@runtime_checkable
class Report(Protocol):
    """What a library call tells while it works."""

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        """`done` of `total` of a stage, with the figures of the moment; total 0 means unknown."""


@contextmanager
def progress(*, silent: bool = False) -> Iterator[Report]:
    """A report to hand to a library call."""
    if silent:
        yield _ignore
    elif sys.stderr.isatty():
        with _Bars() as bars:
            yield bars
    else:
        yield _Lines()


def fractions(report: Report) -> _Fractions:
    """The same report, for a call that tells a fraction of a step."""
    return _Fractions(report)


class _Fractions:
    def __init__(self, report: Report) -> None:
        self.report = report

    def __call__(self, step: str, fraction: float) -> None:
        self.report(step, round(100 * fraction), 100)


class _Bars:
    """One rich bar a stage."""

    def __init__(self) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=total or None, figures="")
        self.bars.update(
            self.tasks[stage],
            completed=done,
            total=total or None,
            figures=_told(figures),
            refresh=done == total,
        )


class _Lines:
    """For logs: a line when a stage starts, at each tenth and at its end."""

    def __init__(self) -> None:
        self.tenths: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int, **figures: float) -> None:
        tenth = 10 * done // total if total else 0
        if self.tenths.get(stage) == tenth:
            return
        self.tenths[stage] = tenth
        of = f"{done}/{total}" if total else str(done)
        click.echo(f"{stage} {of} {_told(figures)}".rstrip(), err=True)


def _told(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


def _ignore(stage: str, done: int, total: int, **figures: float) -> None:
    """Silence."""
