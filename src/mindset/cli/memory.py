"""`mindset memory`: look through the memory of a model folder, and change it; every change can be undone.

Shells over `store.memory` and `store.scan`. Invariant: commands that only look open the folder for reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mindset.cli import failures, memory_index, memory_serve, memory_sweep, options, render
from mindset.cli.memory_evict import evict
from mindset.cli.memory_facts import insert, learn, mount, overlays, umount
from mindset.cli.memory_merge import merge
from mindset.cli.memory_upkeep import migrate, verify
from mindset.cli.opened_memory import counted, counting_store, reading, tell, writing

if TYPE_CHECKING:
    from mindset.store.slots import SlotRecord

__all__ = ["memory"]

COUNTED = 10_000
"""How far `search` counts what it found: a page of a million is not to wait for the count."""
SLOTS = click.argument("slots", metavar="SLOT...", nargs=-1, required=True, type=click.IntRange(min=1))
FILTERS = (
    click.option("--layer", type=click.IntRange(min=0), metavar="N", help="Slots of one layer."),
    click.option("--shard", metavar="NAME", help="base, new, or an overlay's name."),
    click.option("--head", type=click.IntRange(min=0), metavar="N", help="Slots of one head."),
    click.option("--tag", metavar="TAG", help="Slots with this tag."),
    click.option("--pinned/--not-pinned", default=None, help="Pinned slots, or the others."),
    click.option("--suppressed/--not-suppressed", default=None, help="Slots of weight 0, or the others."),
)


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The fields of `store.scan.Where` but its text."""
    for option in reversed(FILTERS):
        command = option(command)
    return command


@click.group(cls=failures.Group, short_help="Look through a memory, and change it.")
def memory() -> None:
    """Look through the memory of a model folder, and change it.

    Slots are named by numbers that are never used again. Every change is in `mindset history DIR` and goes back with
    `mindset undo DIR`. A memory that a daemon serves is named by its URL in place of DIR: unix:PATH or grpc://HOST:PORT.

    \b
    Example:
      mindset memory stats smol
      mindset memory search smol --layer 4 --limit 5
      mindset memory rm smol 1203
    """


memory.add_command(memory_serve.serve, "serve")
memory.add_command(memory_serve.check, "check")


@memory.command("stats")
@options.memory_place
@options.json_option
def stats(place: Path | str, as_json: bool) -> None:
    """Count slots, by layer and shard.

    \b
    Example:
      mindset memory stats smol
    """
    from mindset.store.ranked import shard_use

    with reading(place) as opened:
        found = opened.store.counts()
        edits = sum(entry.state == "done" for entry in opened.history())
        store = counting_store(opened)
        used = [None if store is None else shard_use(store, one) for one in found]
        searched = {} if store is None else memory_index.searched_by(store)
        tokens = 0 if store is None or store.usage.stamp is None else store.usage.stamp[0]
    if as_json:
        shards = [
            asdict(one)
            | ({} if use is None else asdict(use) | {"search": searched[one.shard.layer, one.shard.name]})
            for one, use in zip(found, used, strict=True)
        ]
        render.print_json({"shards": shards, "edits": edits, "counted_tokens": tokens})
        return
    columns = {"layer": "right", "shard": "left", "kind": "left", "heads": "right", "rule": "left", "slots": "right",
               "pinned": "right", "mounted": "left", "hits": "right", "unread": "right"}  # fmt: skip
    render.print_table(
        columns,
        (
            (s.shard.layer, s.shard.name, s.shard.kind, s.shard.heads, s.shard.rule, f"{s.slots:,}", s.pinned,
             "yes" if s.shard.mounted else "no", *(("-", "-") if use is None else (f"{use.hits:,}", f"{use.unread:,}")))
            for s, use in zip(found, used, strict=True)
        ),
    )  # fmt: skip
    render.say(f"\n{sum(one.slots for one in found):,} slots, {edits} edits, {tokens:,} tokens counted")
    for line in memory_index.search_lines(searched):
        render.say(line)


@memory.command("search")
@options.memory_place
@click.argument("text", required=False)
@filters
@click.option("--limit", type=click.IntRange(min=1), default=20, metavar="N", help="Slots on a page.  [20]")
@click.option(
    "--after", type=click.IntRange(min=1), default=None, metavar="SLOT", help="Go on after this slot."
)
@click.option("--newest", is_flag=True, help="Newest first.")
@click.option(
    "--sort",
    type=click.Choice(["hits", "last", "influence", "created"]),
    metavar="NAME",
    help="hits, last, influence or created, the most first.",
)
@click.option("--promotes", metavar="WORD", help="Slots whose values raise this word most; loads the model.")
@click.option("--prompt", metavar="TEXT", help="Slots that fire at the end of this; loads the model.")
@options.json_option
def search(
    *, place: Path | str, text: str | None, limit: int, after: int | None, newest: bool, sort: str | None,
    promotes: str | None, prompt: str | None, as_json: bool, **where: Any,
) -> None:  # fmt: skip
    """Find slots by words and filters.

    Words are looked for in the label, the tags and the source. hits, last read (as the number of a token) and influence
    are there once reads were counted: `mindset generate --count`, `mindset eval --count`.

    TEXT is what a search box takes: words that all occur, "a phrase", -without, this OR that, begin*.

    \b
    Example:
      mindset memory search smol "eiffel tower" --limit 5
      mindset memory search smol --layer 4 --pinned
      mindset memory search smol --sort influence
      mindset memory search smol --promotes Paris
    """
    from mindset.errors import UsageError

    if promotes is not None or prompt is not None:
        given = {"text": text, "after": after, "newest": newest or None, "sort": sort, **where}
        _search_model(
            place, promotes, prompt, limit, {k: v for k, v in given.items() if v is not None}, as_json
        )
        return
    from mindset.store.ranked import ranked
    from mindset.store.scan import Where

    wanted = Where(text=text, **where)
    with reading(place) as opened:
        if sort is None:
            found = opened.store.scan(wanted, limit=limit, after=after or 0, newest=newest)
        elif (store := counting_store(opened)) is None:
            raise UsageError("a daemon counts no reads; sort in the folder that it serves")
        else:
            found = ranked(store, wanted, sort, limit=limit, after=after or 0)
        total = opened.store.count(wanted, at_most=COUNTED + 1)
        used = counted(opened, found)
    whole = total <= COUNTED
    total = min(total, COUNTED)
    if as_json:
        slots = [asdict(record) | use for record, use in zip(found, used, strict=True)]
        render.print_json({"total": total, "whole": whole, "slots": slots})
        return
    _print_records(found, used)
    more = f"; more with --after {found[-1].id}" if len(found) == limit else ""
    render.say(f"\n{len(found)} of {'' if whole else 'more than '}{total:,} slots{more}")


def _preview(place: Path | str, slots: tuple[int, ...], prompts: tuple[str, ...], as_json: bool) -> None:
    """What a deletion would move."""
    from mindset.errors import UsageError
    from mindset.facts.preview import preview_deletion

    if not isinstance(place, Path):
        raise UsageError("a daemon knows no model; give the folder that it serves")
    seen = preview_deletion(place, slots, prompts)
    if as_json:
        render.print_json(asdict(seen))
        return
    columns = {"prompt": "left", "now": "left", "then": "left", "probability": "right", "of it then": "right"}
    rows = (
        (
            one.prompt,
            repr(one.before),
            repr(one.after),
            f"{one.probability:.1%}",
            f"{one.probability_after:.1%}",
        )
        for one in seen.moved
    )
    render.print_table(columns, rows)
    render.say(
        f"\n{len(seen.moved)} of {seen.asked} answers would move; where they stay, a probability moves by at most "
        f"{seen.largest_shift:.1%}. Nothing was changed."
    )


def _search_model(
    place: Path | str, promotes: str | None, prompt: str | None, limit: int, given: dict[str, Any], as_json: bool
) -> None:  # fmt: skip
    """By what slots do, which only the model knows."""
    from mindset.errors import UsageError
    from mindset.probe.slot_search import firing, promoting

    layer = given.pop("layer", None)
    if given or (promotes is not None and prompt is not None):
        raise UsageError("--promotes and --prompt go with --layer and --limit only, and not together")
    if not isinstance(place, Path):
        raise UsageError("a daemon knows no model; give the folder that it serves")
    if promotes is not None:
        found, what = promoting(place, promotes, limit, layer=layer), "adds"
    else:
        found, what = firing(place, str(prompt), limit, layer=layer), "influence"
    if as_json:
        render.print_json([asdict(one) for one in found])
        return
    columns = {
        "slot": "right",
        "layer": "right",
        "shard": "left",
        "head": "right",
        what: "right",
        "label": "left",
    }
    render.print_table(
        columns, ((s.slot or "-", s.layer, s.shard, s.head, f"{s.score:+.3f}", s.label) for s in found)
    )


@memory.command("show")
@options.memory_place
@SLOTS
@options.json_option
def show(place: Path | str, slots: tuple[int, ...], as_json: bool) -> None:
    """Show all that is known of slots, and what they cite.

    \b
    Example:
      mindset memory show smol 1203
    """
    with reading(place) as opened:
        records = opened.store.records(list(slots))
        cited = {r.cites.source: opened.store.source(r.cites.source) for r in records if r.cites}
        used = counted(opened, records)
    shown = []
    for record, use in zip(records, used, strict=True):
        source = None if record.cites is None else cited[record.cites.source]
        quote = (
            None
            if source is None or record.cites is None
            else source.text[record.cites.start : record.cites.stop]
        )
        shown.append(
            asdict(record) | use | {"source": None if source is None else source.name, "quote": quote}
        )
    if as_json:
        render.print_json(shown)
        return
    for one in shown:
        render.print_figures(
            (name.replace("_", " "), _cell(value)) for name, value in one.items() if name != "cites"
        )


@memory.command("rm")
@options.memory_place
@SLOTS
@click.option("--preview", is_flag=True, help="Show which answers would move, and change nothing.")
@click.option(
    "--prompt", "prompts", multiple=True, metavar="TEXT", help="With --preview, ask this too; repeat."
)
@options.json_option
def rm(
    place: Path | str, slots: tuple[int, ...], preview: bool, prompts: tuple[str, ...], as_json: bool
) -> None:
    """Take slots out.

    --preview asks the model some prompts with and without the slots: those of all learned facts, general ones, and
    the lines of `probes.txt` in DIR, which is yours.

    \b
    Example:
      mindset memory rm smol 1203 1204
      mindset memory rm smol 1203 --preview --prompt "The Eiffel Tower is in"
    """
    if preview:
        _preview(place, slots, prompts, as_json)
        return
    with writing(place) as opened:
        opened.delete(list(slots))
        tell(opened, as_json)


@memory.command("edit")
@options.memory_place
@SLOTS
@click.option("--label", metavar="TEXT", help="What people call it.")
@click.option("--weight", type=float, metavar="X", help="Multiplies what it adds; 0 suppresses it.")
@options.json_option
def edit(
    place: Path | str, slots: tuple[int, ...], label: str | None, weight: float | None, as_json: bool
) -> None:
    """Give slots another label or weight.

    \b
    Example:
      mindset memory edit smol 1203 --weight 0
    """
    from mindset.errors import UsageError
    from mindset.store.slots import Change

    change = Change(label=label, weight=weight)
    if not change.given():
        raise UsageError("nothing to change: give --label or --weight")
    with writing(place) as opened:
        opened.change(list(slots), change)
        tell(opened, as_json)


@memory.command("pin")
@options.memory_place
@SLOTS
@click.option("--off", is_flag=True, help="Let them go again.")
@options.json_option
def pin(place: Path | str, slots: tuple[int, ...], off: bool, as_json: bool) -> None:
    """Keep slots from ever being evicted.

    \b
    Example:
      mindset memory pin smol 1203
    """
    from mindset.store.slots import Change

    with writing(place) as opened:
        opened.change(list(slots), Change(pinned=not off))
        tell(opened, as_json)


@memory.command("tag")
@options.memory_place
@SLOTS
@click.option("--set", "tags", multiple=True, metavar="TAG", help="The tags they have from now on; repeat.")
@options.json_option
def tag(place: Path | str, slots: tuple[int, ...], tags: tuple[str, ...], as_json: bool) -> None:
    """Give slots tags to find them by.

    Without --set, takes all tags away.

    \b
    Example:
      mindset memory tag smol 1203 1204 --set geography --set checked
    """
    from mindset.store.slots import Change

    with writing(place) as opened:
        opened.change(list(slots), Change(tags=tags))
        tell(opened, as_json)


@memory.command("export")
@options.memory_place
@options.out_option
@filters
@options.json_option
def export(place: Path | str, out: Path, as_json: bool, **where: Any) -> None:
    """Write slots to a folder of safetensors and JSON lines.

    Without filters all of them. `mindset memory import` takes them in, in this or in another model of the same shape.

    \b
    Example:
      mindset memory export smol --out geography --tag geography
    """
    from mindset.store.portable import export_slots
    from mindset.store.scan import Where

    with reading(place) as opened:
        count = export_slots(opened.store, Where(**where), out)
    if as_json:
        render.print_json({"slots": count, "out": str(out)})
    else:
        render.say(f"{count:,} slots in {out}")


@memory.command("import")
@options.memory_place
@click.argument("source", metavar="EXPORT", type=click.Path(path_type=Path))
@options.json_option
def import_(place: Path | str, source: Path, as_json: bool) -> None:
    """Put in slots that were exported.

    They get numbers of their own; labels, tags, pins, weights, dates and sources are kept.

    \b
    Example:
      mindset memory import smol geography
    """
    with writing(place) as opened:
        opened.take_in(source)
        tell(opened, as_json)


@memory.command("sql")
@options.memory_place
@click.argument("statement")
@options.json_option
def sql(place: Path | str, statement: str, as_json: bool) -> None:
    """Ask the records a question in SQL.

    The tables are described in docs/schema.md.

    \b
    Example:
      mindset memory sql smol "select shard, count(*) from slots where alive = 1 group by shard"
    """
    from mindset.errors import UsageError
    from mindset.store.memory import Memory
    from mindset.store.scan import ask

    if not isinstance(place, Path):
        raise UsageError(
            "a daemon answers no SQL; give the folder that it serves, which may be read beside it"
        )
    with Memory(place, read_only=True) as opened:
        answer = ask(opened.store.ledger, statement)
    if as_json:
        render.print_json([dict(zip(answer.columns, row, strict=True)) for row in answer.rows])
        return
    render.print_table(dict.fromkeys(answer.columns, "left"), answer.rows)


def _print_records(records: list[SlotRecord], used: list[dict[str, Any]]) -> None:
    columns = {"slot": "right", "layer": "right", "shard": "left", "head": "right", "label": "left", "tags": "left",
               "weight": "right", "hits": "right", "last": "right", "influence": "right", "": "left"}  # fmt: skip
    render.print_table(
        columns,
        (
            (
                r.id,
                r.layer,
                r.shard,
                r.head,
                r.label,
                " ".join(r.tags),
                f"{r.weight:g}",
                *((f"{use['hits']:,}", f"{use['last']:,}", f"{use['influence']:.4g}") if use else ("-",) * 3),
                "pinned" if r.pinned else "",
            )
            for r, use in zip(records, used, strict=True)
        ),
    )


for command in (insert, learn, migrate, mount, umount, overlays, verify):
    memory.add_command(command)
memory.add_command(evict)
memory.add_command(merge)
memory.add_command(memory_index.index)
memory.add_command(memory_sweep.sweep)


def _cell(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, tuple) else "-" if value is None else value
