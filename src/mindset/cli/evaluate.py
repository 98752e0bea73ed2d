"""`mindset eval`: a model measured against its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mindset.cli import failures, options, progress, render
from mindset.graft.runtime import Runtime

__all__ = ["evaluate"]

# Short heads, so that a terminal of 80 columns has room for the name.
TEXT_COLUMNS = {
    "tokens": "tokens",
    "bits/byte": "bits_per_byte",
    "teacher": "teacher_bits_per_byte",
    "gap": "gap",
    "kl": "kl",
    "agree": "top1_agreement",
}


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
@options.count_option
@options.runtime_options
@options.json_option
def evaluate(
    *,
    folder: Path,
    against: str | None,
    texts: tuple[Path, ...],
    count: bool,
    decay: float | None,
    runtime: Runtime,
    as_json: bool,
) -> None:
    """Measure a model against its teacher: bits per byte, KL, agreement, fvu, slot use, speed, sizes.

    Without --text the text that ships with Python (pydoc_data.topics) is scored.

    \b
    Example:
      mindset eval smol --against smollm2 --text book.txt
    """
    from mindset.probe.evaluation import evaluate as evaluate_model

    with runtime.active(), progress.progress(silent=as_json) as report:
        result = evaluate_model(
            folder,
            against=against,
            texts=texts,
            progress=report,
            dtype=runtime.torch_dtype,
            device=runtime.device,
            seed=runtime.seed,
            count=count,
            decay=decay,
        )
    if as_json:
        render.print_json(result.to_json())
    else:
        _print(result.to_json())


def _print(figures: dict[str, Any]) -> None:
    """Single figures in two columns, then a row for each layer and, where there are several, each text."""
    single = {name: value for name, value in figures.items() if not isinstance(value, list | tuple | dict)}
    render.print_figures((name, _told(value)) for name, value in single.items())
    if figures["layers"]:
        rows = zip(figures["layers"], figures["k"], figures["fvu"], figures["slot_use"], strict=True)
        render.say("")
        render.print_table(
            dict.fromkeys(("layer", "k", "fvu", "slot_use"), "right"),
            ((layer, "all" if k is None else k, _told(fvu), _told(use)) for layer, k, fvu, use in rows),
        )
    if len(figures["texts"]) > 1:
        render.say("")
        render.print_table(
            {"text": "left"} | dict.fromkeys(TEXT_COLUMNS, "right"),
            (
                [text["name"], *(_told(text[key]) for key in TEXT_COLUMNS.values())]
                for text in figures["texts"]
            ),
        )
    for note in figures["notes"]:
        render.say(f"\n{note}")


def _told(value: object) -> str:
    if isinstance(value, float) or value is None:
        return render.bits(value, 4)
    return f"{value:,}" if isinstance(value, int) else str(value)
