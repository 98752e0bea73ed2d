"""`mindset memory sweep`: which layers of a model facts go to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mindset.cli import failures, options, render
from mindset.graft.runtime import Runtime

if TYPE_CHECKING:
    from mindset.facts.fact_layers import Sweep

__all__ = ["sweep"]


@click.command("sweep", cls=failures.Command)
@options.model_folder
@options.runtime_options
@options.json_option
def sweep(folder: Path, runtime: Runtime, as_json: bool) -> None:
    """Choose the layers of a model that its facts are learned in.

    Two dozen made-up facts are tried: in which layers their subjects are met and not mistaken, and written into which
    layers they answer to other words and leave other questions on the same subjects alone. That takes some 20 minutes
    on SmolLM2. No slot is written; the choice is a cache in DIR/memory/cache, which `mindset memory learn` goes by.

    \b
    Example:
      mindset memory sweep smol
    """
    from mindset.cli.progress import progress
    from mindset.facts.sweep import sweep_folder

    with runtime.active(), progress(silent=as_json) as report:
        done = sweep_folder(folder, device=runtime.device, progress=report)
    if as_json:
        render.print_json(asdict(done))
    else:
        _tell(done)


def _tell(done: Sweep) -> None:
    subjects = {one.layer: (f"{one.met:.3f}", f"{one.mistaken:.3f}") for one in done.subjects}
    facts = {one.layer: (f"{one.said:.3f}", f"{one.kept:.3f}") for one in done.facts}
    chosen = {done.layers.subject: "subjects", done.layers.fact: "facts"}
    none = ("", "")
    rows = (
        (str(layer), *subjects.get(layer, none), *facts.get(layer, none), chosen.get(layer, ""))
        for layer in sorted(subjects.keys() | facts.keys())
    )
    columns = dict.fromkeys(("layer", "subjects met", "mistaken", "facts said", "others kept"), "right")
    render.print_table({**columns, "chosen for": "left"}, rows)
