"""`mindset history`, `undo`, `redo`, `snapshot`, `restore` and `diff`: what was done to a model folder, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mindset.cli import failures, options, render

if TYPE_CHECKING:
    from mindset.journal.journal import Entry

__all__ = ["diff", "history", "redo", "restore", "snapshot", "undo"]

SHOWN = 40
"""Slots of a difference that are told one by one."""

COUNT = click.argument("count", metavar="[N]", type=click.IntRange(min=1), default=1)


@click.command(cls=failures.Command, short_help="List what was done to a model folder.")
@options.memory_place
@options.json_option
def history(place: Path | str, as_json: bool) -> None:
    """List what was done to a model folder, newest first.

    \b
    Example:
      mindset history smol
    """
    from mindset.store.place import open_memory

    with open_memory(place, read_only=True) as opened:
        entries = opened.history()[::-1]
    if as_json:
        render.print_json([asdict(entry) for entry in entries])
        return
    if not entries:
        render.say(f"nothing was done to {place} since it was saved")
        return
    columns = {"when": "left", "who": "left", "state": "left", "what": "left"}
    render.print_table(columns, ((e.when[:19].replace("T", " "), e.who, e.state, e.title) for e in entries))


@click.command(cls=failures.Command, short_help="Take back the last changes of a model folder.")
@options.memory_place
@COUNT
@options.json_option
def undo(place: Path | str, count: int, as_json: bool) -> None:
    """Take back the last N changes of a model folder.

    \b
    Example:
      mindset undo smol
      mindset undo smol 3
    """
    from mindset.store.place import open_memory

    with open_memory(place) as opened:
        _tell(opened.undo(count), "undone", as_json)


@click.command(cls=failures.Command, short_help="Make changes again that were taken back.")
@options.memory_place
@COUNT
@options.json_option
def redo(place: Path | str, count: int, as_json: bool) -> None:
    """Make N changes again that were taken back.

    \b
    Example:
      mindset redo smol
    """
    from mindset.store.place import open_memory

    with open_memory(place) as opened:
        _tell(opened.redo(count), "done again", as_json)


@click.command(cls=failures.Command, short_help="Name the state of a model folder, to come back to.")
@options.memory_place
@click.argument("name", required=False)
@click.option("--drop", is_flag=True, help="Let go of the name instead.")
@options.json_option
def snapshot(place: Path | str, name: str | None, drop: bool, as_json: bool) -> None:
    """Name the state of a model folder, to come back to; without NAME, list the names.

    Nothing is copied: what was changed since is kept by the history. A snapshot that was undone past is gone once
    something else is changed.

    \b
    Example:
      mindset snapshot smol before-cleaning
      mindset snapshot smol
    """
    from mindset.errors import UsageError
    from mindset.store.place import open_memory

    if name is None and drop:
        raise UsageError("say which snapshot to drop")
    with open_memory(place, read_only=name is None) as opened:
        if name is not None:
            (opened.unsnapshot if drop else opened.snapshot)(name)
        states = opened.snapshots()
    if as_json:
        render.print_json([{"name": one, "changes": changes} for one, changes in states.items()])
    elif name is not None:
        render.say(f"{name} dropped" if drop else f"{name}; back to it with: mindset restore {place} {name}")
    else:
        render.print_table({"snapshot": "left", "changes": "right"}, states.items())


@click.command(cls=failures.Command, short_help="Go back to a snapshot of a model folder.")
@options.memory_place
@click.argument("name")
@options.json_option
def restore(place: Path | str, name: str, as_json: bool) -> None:
    """Go back to a snapshot of a model folder, or forward to it.

    Later changes are undone, not lost: `mindset redo` makes them again.

    \b
    Example:
      mindset restore smol before-cleaning
    """
    from mindset.store.place import open_memory

    with open_memory(place) as opened:
        turned = opened.restore(name)
    if not turned and not as_json:
        render.say(f"{place} is at {name} already")
    _tell(turned, "done again" if turned and turned[0].state == "done" else "undone", as_json)


@click.command(cls=failures.Command, short_help="Show what differs between two states of a model folder.")
@options.memory_place
@click.argument("before", required=False)
@click.argument("after", required=False)
@options.json_option
def diff(place: Path | str, before: str | None, after: str | None, as_json: bool) -> None:
    """Show what differs between two snapshots, slot by slot.

    Without AFTER: from BEFORE to now. Without both: from the state in which the model was saved.

    \b
    Example:
      mindset diff smol before-cleaning
    """
    from mindset.store.place import open_memory

    with open_memory(place, read_only=True) as opened:
        found = opened.diff(before, after)
    if as_json:
        render.print_json(asdict(found))
        return
    lines = [("+", one, "") for one in found.put_in] + [("-", one, "") for one in found.taken_out]
    lines += [("~", one.after, ", ".join(one.what)) for one in found.changed]
    for sign, one, what in lines[:SHOWN]:
        label = f" {one.label!r}" if one.label else ""
        render.say(f"{sign} slot {one.id}, layer {one.layer}, {one.shard}{label}{what and ': '}{what}")
    if len(lines) > SHOWN:
        render.say(f"and {len(lines) - SHOWN:,} more; all of them with --json")
    render.say(
        f"{len(found.put_in):,} slots put in, {len(found.taken_out):,} taken out, {len(found.changed):,} changed"
    )


def _tell(entries: list[Entry], what: str, as_json: bool) -> None:
    if as_json:
        render.print_json([asdict(entry) for entry in entries])
        return
    for entry in entries:
        render.say(f"{what}: {entry.title}")
