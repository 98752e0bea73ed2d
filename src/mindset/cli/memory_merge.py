"""`mindset memory merge`: let slots that are near become one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mindset.cli import failures, options, render
from mindset.cli.memory_evict import places
from mindset.cli.opened_memory import tell

if TYPE_CHECKING:
    from mindset.store.merging import Merging

__all__ = ["merge"]

SHOWN = 10


@click.command("merge", cls=failures.Command, short_help="Let slots that are near become one.")
@options.model_folder
@click.option(
    "--within",
    type=click.FloatRange(0, 1),
    default=0.02,
    metavar="X",
    help="Distance of keys, 1 - cosine, at most.  [0.02]",
)
@click.option("--co-read", is_flag=True, help="Merge what keeps coming back together instead.")
@click.option(
    "--often",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    metavar="X",
    help="With --co-read: share of reads, at least.  [0.5]",
)
@click.option(
    "--most", type=click.IntRange(min=1), metavar="N", help="Merged slots at most, the least change first."
)
@places
@click.option("--dry-run", is_flag=True, help="Show what would be merged, and change nothing.")
@options.json_option
def merge(folder: Path, *, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Let slots of one shard and head that are near become one.

    Keys and modulators are averaged by use, values are added, so that the merged slot adds what the others added
    together. It cites what they cited. --co-read goes by pairs that were counted while they came back in the same k
    with about the same influence, however far apart their keys are.

    The change is an estimate: how far slots are moved, times their influence, as a share of the layer's.

    \b
    Example:
      mindset memory merge smol --within 0.05 --dry-run
      mindset memory merge smol --co-read --most 100
    """
    from mindset.store.memory import Memory
    from mindset.store.merging import MergeSettings, plan_merging

    settings = MergeSettings(**given)
    with Memory(folder, read_only=dry_run) as opened:
        plan = plan_merging(opened.store, settings)
        if dry_run:
            _show(plan, as_json)
        elif plan.groups:
            opened.merge(plan)
            tell(opened, as_json)
        elif as_json:
            render.print_json(None)
        else:
            render.say("nothing is to be merged")


def _show(plan: Merging, as_json: bool) -> None:
    if as_json:
        groups = [asdict(group) for group in plan.groups]
        render.print_json({"groups": groups, "change": plan.change, "counted": plan.counted})
        return
    columns = {"layer": "right", "shard": "left", "head": "right", "slots": "left", "change": "right"}
    rows = (
        (g.layer, g.shard, g.head, " ".join(map(str, g.ids)), f"{g.change:.3%}") for g in plan.groups[:SHOWN]
    )
    render.print_table(columns, rows)
    for layer, change in sorted(plan.change.items()):
        render.say(f"layer {layer}: about {change:.3%} of what its slots add would change")
    if not plan.counted:
        render.say("no reads were counted: lengths of keys and values stand for influence")
    slots = sum(len(group.ids) for group in plan.groups)
    render.say(f"\n{slots:,} slots would become {len(plan.groups):,}; nothing was changed")
