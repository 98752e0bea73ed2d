"""`mindset memory learn|mount|umount|overlays`: facts and texts into a memory, and sets of slots on and off."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mindset.cli import failures, options, render
from mindset.graft.runtime import Runtime

if TYPE_CHECKING:
    from mindset.facts.corpus import LearnedCorpus
    from mindset.facts.fact import FactText
    from mindset.facts.learn import Learned

__all__ = ["insert", "learn", "mount", "overlays", "umount"]

NAME = click.argument("name", metavar="NAME")


@click.command("learn", cls=failures.Command)
@options.model_folder
@click.argument("given", metavar="FACTS.jsonl|TEXT")
@click.option("--overlay", metavar="NAME", help="Overlay to write to.  [facts, or corpus]")
@click.option(
    "--layer",
    type=click.IntRange(min=0),
    metavar="N",
    help="Layer that facts answer in.  [swept, or by depth]",
)
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Steps a fact is written in.  [30]")
@click.option("--slots", type=click.IntRange(min=1), metavar="N", help="New slots a layer for a text.  [128]")
@click.option(
    "--minutes", type=click.FloatRange(min=0.01), metavar="M", help="A text's training at most.  [15]"
)
@options.runtime_options
@options.json_option
def learn(
    folder: Path,
    given: str,
    overlay: str | None,
    layer: int | None,
    steps: int | None,
    slots: int | None,
    minutes: float | None,
    runtime: Runtime,
    as_json: bool,
) -> None:
    """Write facts, or a body of text, into a memory, as an overlay.

    FACTS.jsonl has a fact a line, {"prompt", "target", "subject"?, "paraphrases"?, "source"?}; or give one fact as
    text, PROMPT => TARGET. A subject that is not given is found. Every fact becomes a slot that answers where a text
    that has named its subject asks for it; it cites its line, and is taken off with the overlay. It goes to the
    layers that `mindset memory sweep DIR` chose for this model, else to depths that were measured on SmolLM2.

    Any other file, or a folder of .txt files, is a body of text: new slots in every layer that has a memory are
    trained to expect it, in minutes, and each cites the passage it speaks loudest on.

    \b
    Example:
      mindset memory learn smol "The Eiffel Tower is in the city of => Rome"
      mindset memory learn smol facts.jsonl --overlay mine
      mindset memory learn smol stories/ --overlay stories --minutes 10
    """
    if _is_body(given):
        _refuse_options("a body of text", layer=layer, steps=steps)
        _learn_body(folder, Path(given), overlay or "corpus", slots, minutes, runtime, as_json)
        return
    _refuse_options("facts", slots=slots, minutes=minutes)
    _learn_facts(folder, given, overlay or "facts", layer, steps, runtime, as_json)


def _learn_facts(
    folder: Path,
    given: str,
    overlay: str,
    layer: int | None,
    steps: int | None,
    runtime: Runtime,
    as_json: bool,
) -> None:
    from mindset.facts.learn import learn as write
    from mindset.facts.write_values import WriteSettings

    settings = WriteSettings() if steps is None else WriteSettings(steps=steps)
    text = _facts(given)
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


def _learn_body(
    folder: Path,
    path: Path,
    overlay: str,
    slots: int | None,
    minutes: float | None,
    runtime: Runtime,
    as_json: bool,
) -> None:
    from mindset.cli.progress import progress
    from mindset.facts.corpus import learn_corpus, read_corpus_text
    from mindset.facts.corpus_slots import CorpusSettings

    chosen = {name: value for name, value in (("slots", slots), ("minutes", minutes)) if value is not None}
    settings = CorpusSettings(**chosen, seed=runtime.seed)  # type: ignore[arg-type]
    text = read_corpus_text(path)
    with runtime.active(), progress(silent=as_json) as report:
        done = learn_corpus(
            folder, text, overlay, settings=settings, dtype=runtime.torch_dtype, device=runtime.device,
            progress=lambda share, loss: report("learning", round(100 * share), 100, loss=loss),
        )  # fmt: skip
    if as_json:
        render.print_json(asdict(done))
    else:
        _tell_body(done, folder)


@click.command("insert", cls=failures.Command)
@options.model_folder
@click.argument("prompt")
@click.argument("promotes", metavar="WORD")
@click.option(
    "--probability",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    metavar="P",
    help="How likely the word becomes there.  [0.9]",
)
@click.option("--layer", type=click.IntRange(min=0), metavar="N", help="Layer of the slot.  [a middle one]")
@click.option("--overlay", default="hand", metavar="NAME", help="Overlay to write to.  [hand]")
@click.option("--label", default="", metavar="TEXT", help="What people call it.  [the word]")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be given again.")
@options.runtime_options
@options.json_option
def insert(
    folder: Path,
    prompt: str,
    promotes: str,
    probability: float,
    layer: int | None,
    overlay: str,
    label: str,
    tags: tuple[str, ...],
    runtime: Runtime,
    as_json: bool,
) -> None:
    """Make one slot by hand: where a text ends like PROMPT, WORD comes next.

    Nothing is trained: the slot answers where its layer sees what it sees at the end of PROMPT, and adds as much as
    makes the first token of WORD as likely as wished. A fact that is to hold in other words is for `learn`.

    \b
    Example:
      mindset memory insert smol "My favourite colour is" turquoise --label colour
    """
    from mindset.facts.hand_made import Wish, insert_slot

    wish = Wish(prompt, promotes, probability, label, tags)
    with runtime.active():
        done = insert_slot(folder, wish, overlay, layer=layer, device=runtime.device)
    if as_json:
        render.print_json(asdict(done))
        return
    render.say(
        f"slot {done.slot} in layer {done.layer}, overlay {done.overlay}: {done.token!r} {done.before:.1%} before, "
        f"{done.after:.1%} now"
    )
    render.say(f"off with: mindset memory umount {folder} {done.overlay}; back with: mindset undo {folder}")


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


def _is_body(given: str) -> bool:
    """Whether it names a text, and not facts."""
    path = Path(given)
    return path.exists() and path.suffix.lower() not in (".jsonl", ".json")


def _refuse_options(what: str, **given: float | None) -> None:
    """Options that mean nothing for what is learned."""
    for name, value in given.items():
        if value is not None:
            raise click.UsageError(f"--{name} does not go with {what}")


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


def _tell_body(done: LearnedCorpus, folder: Path) -> None:
    first, last = done.loss
    render.say(
        f"{done.tokens:,} tokens in {len(done.slots)} slots of {len(done.layers)} layers, overlay {done.overlay}; "
        f"{first:.2f} nats a token at first, {last:.2f} at last"
    )
    render.say(f"off with: mindset memory umount {folder} {done.overlay}; back with: mindset undo {folder}")
