"""`mindset memory learn|mount|umount|overlays`: facts into a memory, and sets of slots on and off."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mindset.cli import failures, options, render
from mindset.graft.runtime import Runtime

if TYPE_CHECKING:
    from mindset.facts.fact import FactText
    from mindset.facts.learn import Learned

__all__ = ["learn", "mount", "overlays", "umount"]

NAME = click.argument("name", metavar="NAME")


@click.command("learn", cls=failures.Command)
@options.model_folder
@click.argument("facts", metavar="FACTS.jsonl|TEXT")
@click.option("--overlay", default="facts", metavar="NAME", help="Overlay to write to.  [facts]")
@click.option(
    "--layer", type=click.IntRange(min=0), metavar="N", help="Layer that facts answer in.  [by depth]"
)
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Steps a fact is written in.  [30]")
@options.runtime_options
@options.json_option
def learn(
    folder: Path,
    facts: str,
    overlay: str,
    layer: int | None,
    steps: int | None,
    runtime: Runtime,
    as_json: bool,
) -> None:
    """Write facts into a memory, as an overlay.

    FACTS.jsonl has a fact a line, {"prompt", "target", "subject"?, "paraphrases"?, "source"?}; or give one fact as
    text, PROMPT => TARGET. A subject that is not given is found. Every fact becomes a slot that answers where a text
    that has named its subject asks for it; it cites its line, and is taken off with the overlay.

    \b
    Example:
      mindset memory learn smol "The Eiffel Tower is in the city of => Rome"
      mindset memory learn smol facts.jsonl --overlay mine
    """
    from mindset.facts.learn import learn as write
    from mindset.facts.write_values import WriteSettings

    settings = WriteSettings() if steps is None else WriteSettings(steps=steps)
    text = _facts(facts)
    with runtime.active():
        done = write(
            folder,
            text,
            overlay,
            layer=layer,
            settings=settings,
            dtype=runtime.torch_dtype,
            device=runtime.device,
        )
    if as_json:
        render.print_json(asdict(done))
    else:
        _tell(done, folder)


@click.command("mount", cls=failures.Command)
@options.model_folder
@NAME
@options.json_option
def mount(folder: Path, name: str, as_json: bool) -> None:
    """Let an overlay be read.

    \b
    Example:
      mindset memory mount smol facts
    """
    _set_mounted(folder, name, True, as_json)


@click.command("umount", cls=failures.Command)
@options.model_folder
@NAME
@options.json_option
def umount(folder: Path, name: str, as_json: bool) -> None:
    """Take an overlay off; its slots stay on disk.

    The model then computes what it computed before the overlay was there, bit for bit.

    \b
    Example:
      mindset memory umount smol facts
    """
    _set_mounted(folder, name, False, as_json)


@click.command("overlays", cls=failures.Command)
@options.model_folder
@options.json_option
def overlays(folder: Path, as_json: bool) -> None:
    """List the overlays of a memory.

    \b
    Example:
      mindset memory overlays smol
    """
    from mindset.store.memory import Memory

    with Memory(folder, read_only=True) as opened:
        found = opened.overlays()
    if as_json:
        render.print_json([asdict(one) for one in found])
        return
    columns = {"overlay": "left", "mounted": "left", "slots": "right", "layers": "left"}
    rows = (
        (one.name, "yes" if one.mounted else "no", f"{one.slots:,}", ", ".join(map(str, one.layers)))
        for one in found
    )
    render.print_table(columns, rows)


def _facts(given: str) -> FactText:
    """A file of facts, or one fact as text."""
    from mindset.facts.fact import ARROW, parse_facts, read_facts

    path = Path(given)
    if ARROW in given and not path.exists():
        return parse_facts(given, "command line")
    return read_facts(path)


def _set_mounted(folder: Path, name: str, wanted: bool, as_json: bool) -> None:
    from mindset.store.memory import Memory

    with Memory(folder) as opened:
        changed = opened.mount(name) if wanted else opened.unmount(name)
    if as_json:
        render.print_json({"overlay": name, "mounted": wanted, "changed": changed})
    elif changed:
        render.say(f"overlay {name} {'mounted' if wanted else 'taken off'}; back with: mindset undo {folder}")
    else:
        render.say(f"overlay {name} {'is mounted' if wanted else 'is not mounted'} already")


def _tell(done: Learned, folder: Path) -> None:
    columns: Any = {
        "slot": "left",
        "prompt": "left",
        "target": "left",
        "before": "right",
        "now": "right",
        "": "left",
    }
    rows = (
        (
            str(one.slot or ""), one.fact.prompt, one.fact.target, f"{one.before:.1%}", f"{one.after:.1%}",
            "" if one.greedy else "not the likeliest" if one.slot else "not written: no slot could tell its subject",
        )
        for one in done.facts
    )  # fmt: skip
    render.print_table(columns, rows)
    said = sum(one.greedy for one in done.facts)
    render.say(
        f"\n{said} of {len(done.facts)} facts are what the model says now; overlay {done.overlay}, "
        f"layer {done.layer}, {len(done.slots)} slots"
    )
    render.say(f"off with: mindset memory umount {folder} {done.overlay}; back with: mindset undo {folder}")
