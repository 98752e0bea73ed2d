"""`mindset memory evict`: let the least used slots go."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mindset.cli import failures, options, render
from mindset.cli.opened_memory import counted, tell

if TYPE_CHECKING:
    from mindset.store.eviction_plan import Eviction
    from mindset.store.memory import Memory

__all__ = ["PLACE", "evict", "places"]

POLICIES = ("lrfu", "lru", "lfu", "fifo", "s3fifo", "influence", "random")
SHOWN = 10
PLACE = (
    click.option("--layer", type=click.IntRange(min=0), metavar="N", help="Only slots of one layer."),
    click.option("--shard", metavar="NAME", help="Only slots of one shard.  [base and new]"),
    click.option("--head", type=click.IntRange(min=0), metavar="N", help="Only slots of one head."),
)


def places(command: Any) -> Any:
    """`--layer --shard --head`."""
    for option in reversed(PLACE):
        command = option(command)
    return command


class Size(click.ParamType[int]):
    """Bytes, as people write them."""

    name = "SIZE"
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}  # noqa: RUF012  never written to

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMG]?B?)", str(value))
        if match is None or match[2].upper() not in self.units:
            self.fail(f"{value!r} is no size, for example 200MB", param, ctx)
        return int(float(match[1]) * self.units[match[2].upper()])


class Age(click.ParamType[tuple[int, timedelta]]):
    """Counted tokens, or a time."""

    name = "N|Nd|Nh|Nm"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As it is to be typed."""
        return self.name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, timedelta]:
        """Tokens and time, one of them 0."""
        match = re.fullmatch(r"(\d+)([dhm]?)", str(value))
        if match is None:
            self.fail(
                f"{value!r} is neither a number of tokens nor a time such as 7d, 12h or 30m", param, ctx
            )
        count, unit = int(match[1]), match[2]
        times = {"": timedelta(), "d": timedelta(days=count), "h": timedelta(hours=count)}
        return (0 if unit else count), times.get(unit, timedelta(minutes=count))


@click.command("evict", cls=failures.Command, short_help="Let the least used slots go.")
@options.model_folder
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    default="lrfu",
    metavar="NAME",
    help=f"{', '.join(POLICIES)}  [lrfu]",
)
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Slots that each head of a bank keeps.")
@click.option(
    "--remove", type=click.IntRange(min=0), metavar="N", help="Slots that each head of a bank loses."
)
@click.option(
    "--budget", type=Size(), metavar="SIZE", help="Bytes that all living slots may have, such as 200MB."
)
@click.option(
    "--young", type=Age(), help="Spare what was put in within N counted tokens, or days, hours, minutes."
)
@places
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Of random.  [0]")
@click.option("--dry-run", is_flag=True, help="Show what would go, and change nothing.")
@options.json_option
def evict(
    folder: Path, *, young: tuple[int, timedelta] | None, dry_run: bool, as_json: bool, **given: Any
) -> None:
    """Let the least used slots go, by what was counted of their reads.

    Count first: `mindset generate --count`, `mindset eval --count`. lrfu weighs how often and how lately a slot was
    read, lru only how lately, lfu only how often; s3fifo lets newcomers go that were not read again; influence goes by
    what slots added, fifo by age; random is the control. Pinned slots stay, and so do slots of associative banks.

    Bytes are those of the living slots' vectors. Files do not shrink as long as an undo may want what is in them.

    \b
    Example:
      mindset memory evict smol --keep 1200 --policy influence --dry-run
      mindset memory evict smol --budget 200MB --young 7d
    """
    from mindset.store.eviction_plan import EvictionSettings, plan_eviction
    from mindset.store.memory import Memory

    steps, age = young or (0, timedelta())
    since = (datetime.now(UTC) - age).isoformat(timespec="seconds") if age else None
    settings = EvictionSettings(young_steps=steps, young_since=since, **given)
    with Memory(folder, read_only=dry_run) as opened:
        plan = plan_eviction(opened.store, settings)
        if dry_run:
            _show(opened, plan, as_json)
        elif len(plan.ids):
            opened.evict(plan)
            tell(opened, as_json)
        else:
            _nothing(as_json)


def _nothing(as_json: bool) -> None:
    if as_json:
        render.print_json(None)
    else:
        render.say("nothing has to go")


def _show(opened: Memory, plan: Eviction, as_json: bool) -> None:
    records = opened.store.records(plan.ids[:SHOWN])
    first = [asdict(record) | use for record, use in zip(records, counted(opened, records), strict=True)]
    if as_json:
        heads = [asdict(head) for head in plan.heads]
        told = {"evicted": len(plan.ids), "heads": heads, "first": first}
        render.print_json(told | {"bytes_before": plan.bytes_before, "bytes_after": plan.bytes_after})
        return
    columns = ("layer", "head", "living", "spared", "evicted", "influence")
    render.print_table(
        dict.fromkeys(columns, "right"),
        (
            (h.layer, h.head, f"{h.living:,}", f"{h.spared:,}", f"{h.evicted:,}", _share(h.influence_share))
            for h in plan.heads
        ),
    )
    if first:
        render.say("\nfirst to go:")
        shown = ("id", "layer", "shard", "head", "label", "hits", "last", "influence")
        render.print_table(
            dict.fromkeys(shown, "right"), ((_cell(one[name]) for name in shown) for one in first)
        )
    before, after = render.size(plan.bytes_before), render.size(plan.bytes_after)
    render.say(
        f"\n{len(plan.ids):,} slots would go, {before} of living slots to {after}; nothing was changed"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
