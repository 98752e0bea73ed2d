"""`mindset history`, `undo` and `redo`: what was done to a model folder, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mindset.cli import failures, options, render

if TYPE_CHECKING:
    from mindset.journal.journal import Entry

__all__ = ["history", "redo", "undo"]

COUNT = click.argument("count", metavar="[N]", type=click.IntRange(min=1), default=1)


@click.command(cls=failures.Command, short_help="List what was done to a model folder.")
@options.model_folder
@options.json_option
def history(folder: Path, as_json: bool) -> None:
    """List what was done to a model folder, newest first.

    \b
    Example:
      mindset history smol
    """
    from mindset.store.memory import Memory

    with Memory(folder, read_only=True) as opened:
        entries = opened.journal.entries[::-1]
    if as_json:
        render.print_json([asdict(entry) for entry in entries])
        return
    if not entries:
        render.say(f"nothing was done to {folder} since it was saved")
        return
    columns = {"when": "left", "who": "left", "state": "left", "what": "left"}
    render.print_table(columns, ((e.when[:19].replace("T", " "), e.who, e.state, e.title) for e in entries))


@click.command(cls=failures.Command, short_help="Take back the last changes of a model folder.")
@options.model_folder
@COUNT
@options.json_option
def undo(folder: Path, count: int, as_json: bool) -> None:
    """Take back the last N changes of a model folder.

    \b
    Example:
      mindset undo smol
      mindset undo smol 3
    """
    from mindset.store.memory import Memory

    with Memory(folder) as opened:
        _tell(opened.undo(count), "undone", as_json)


@click.command(cls=failures.Command, short_help="Make changes again that were taken back.")
@options.model_folder
@COUNT
@options.json_option
def redo(folder: Path, count: int, as_json: bool) -> None:
    """Make N changes again that were taken back.

    \b
    Example:
      mindset redo smol
    """
    from mindset.store.memory import Memory

    with Memory(folder) as opened:
        _tell(opened.redo(count), "done again", as_json)


def _tell(entries: list[Entry], what: str, as_json: bool) -> None:
    if as_json:
        render.print_json([asdict(entry) for entry in entries])
        return
    for entry in entries:
        render.say(f"{what}: {entry.title}")
