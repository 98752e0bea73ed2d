"""`mindset eval`: a model measured against its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mindset.cli import failures, options, progress, render
from mindset.graft.runtime import Runtime

__all__ = ["evaluate"]


@click.command("eval", cls=failures.Command, short_help="Measure a model against its teacher.")
@options.model_folder
@click.option("--against", metavar="MODEL", help="Teacher.  [the one DIR was made from]")
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=options.FILE,
    metavar="FILE",
    help="Text to score; repeat for several.",
)
@options.runtime_options
@options.json_option
def evaluate(
    folder: Path, against: str | None, texts: tuple[Path, ...], runtime: Runtime, as_json: bool
) -> None:
    """Measure a model against its teacher: bits per byte, KL, agreement, fvu, slot use, speed, sizes.

    Without --text the text that ships with Python (pydoc_data.topics) is scored.

    \b
    Example:
      mindset eval smol --against smollm2 --text book.txt
    """
    from mindset.probe.evaluation import evaluate as evaluate_model

    with runtime.active(), progress.progress(silent=as_json) as report:
        result = evaluate_model(folder, against=against, texts=list(texts), progress=report)
    if as_json:
        render.print_json(result.to_json())
    else:
        _print(result.to_json())


def _print(figures: dict[str, Any]) -> None:
    """Single figures in two columns, then a row for each layer."""
    lists = {name: value for name, value in figures.items() if isinstance(value, list | tuple)}
    render.print_figures((name, _told(value)) for name, value in figures.items() if name not in lists)
    per_layer = {name: value for name, value in lists.items() if name in ("fvu", "slot_use")}
    if per_layer:
        columns = {"layer": "right"} | dict.fromkeys(per_layer, "right")
        rows = zip(*per_layer.values(), strict=False)
        render.print_table(columns, ([layer, *map(_told, row)] for layer, row in enumerate(rows)))


def _told(value: object) -> str:
    if isinstance(value, float) or value is None:
        return render.bits(value, 4)
    return f"{value:,}" if isinstance(value, int) else str(value)
