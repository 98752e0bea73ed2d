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

    Two dozen made-up facts get their keys in every layer that has a memory. A layer is judged by how often it meets
    their subjects, and by how well it tells other words for them from other questions on the same subject. Nothing is
    trained, no slot is written: the choice is a cache in DIR/memory/cache, which `mindset memory learn` goes by.

    \b
    Example:
      mindset memory sweep smol
    """
    from mindset.cli.progress import progress
    from mindset.facts.sweep import sweep_folder

    with runtime.active(), progress(silent=as_json) as report:
        done = sweep_folder(
            folder, device=runtime.device, progress=lambda done, of: report("trying facts", done, of)
        )
    if as_json:
        render.print_json(asdict(done))
    else:
        _tell(done)


def _tell(done: Sweep) -> None:
    subjects = {one.layer: one.share for one in done.subjects}
    facts = {one.layer: one.share for one in done.facts}
    chosen = {done.layers.subject: "subjects", done.layers.fact: "facts"}
    rows = (
        (str(layer), *(_share(shares.get(layer)) for shares in (subjects, facts)), chosen.get(layer, ""))
        for layer in sorted(subjects.keys() | facts.keys())
    )
    render.print_table(
        {"layer": "right", "meets subjects": "right", "knows questions": "right", "chosen for": "left"}, rows
    )


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2f}"
