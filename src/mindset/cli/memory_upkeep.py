"""`mindset memory verify` and `migrate`: every byte is checked; a memory of an older release becomes one of this."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from mindset.cli import failures, options, render
from mindset.cli.opened_memory import reading

__all__ = ["migrate", "verify"]


@click.command("verify", cls=failures.Command)
@options.memory_place
@options.json_option
@click.pass_context
def verify(ctx: click.Context, place: Path | str, as_json: bool) -> None:
    """Compare every byte with its checksum.

    Exit code 1 where one is wrong.

    \b
    Example:
      mindset memory verify smol
    """
    with reading(place) as opened:
        files, slots = opened.store.damage(), opened.store.verify()
        checked = opened.store.count()
    if as_json:
        render.print_json(
            {"slots": checked, "files": [asdict(f) for f in files], "wrong": [asdict(s) for s in slots]}
        )
    else:
        for damage in files:
            render.say(f"{damage.file}: {damage.message}")
        for slot in slots:
            render.say(
                f"slot {slot.id} (layer {slot.layer}, {slot.shard}, row {slot.row}): its checksum differs"
            )
        render.say(f"{checked:,} slots checked, {len(slots)} wrong, {len(files)} damaged files")
    if files or slots:
        ctx.exit(1)


@click.command("migrate", cls=failures.Command)
@options.model_folder
@options.json_option
def migrate(folder: Path, as_json: bool) -> None:
    """Bring a memory of an older release to what this one reads.

    Slots, edits and what can be undone stay. Commands that change a memory do so by themselves; those that read one
    write nothing, and say when it is needed.

    \b
    Example:
      mindset memory migrate smol
    """
    from mindset.store.memory import Memory

    with Memory(folder) as opened:
        slots = opened.store.count()
    if as_json:
        render.print_json({"slots": slots})
    else:
        render.say(f"{folder}: {slots:,} slots, as this release reads them")
