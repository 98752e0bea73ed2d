"""`mindset tour`: facts into a real model and out of it again, in two minutes."""

from __future__ import annotations

from pathlib import Path

import click

from mindset.cli import failures, options, render
from mindset.graft.runtime import Runtime

__all__ = ["tour"]

SOURCE = "smollm2"


@click.command(cls=failures.Command, short_help="See facts learned, cited and taken off, in two minutes.")
@click.option("--model", default=SOURCE, metavar="MODEL", help=f"Model to take it on.  [{SOURCE}]")
@click.option(
    "--out", type=options.FOLDER, metavar="DIR", help="Folder to write anew.  [tour, in your data folder]"
)
@options.runtime_options
@options.json_option
@click.pass_context
def tour(ctx: click.Context, model: str, out: Path | None, runtime: Runtime, as_json: bool) -> None:
    """See facts learned, cited and taken off, in two minutes.

    Gives a model a memory, learns three (wrong) facts as an overlay, asks in other words, shows which slot and which
    line of the source spoke, takes the overlay off, and checks that nothing is left of it.

    \b
    Example:
      mindset tour
    """
    from mindset import places
    from mindset.errors import UsageError
    from mindset.facts.tour import take_tour

    if runtime.dtype not in (None, "float32"):
        raise UsageError(f"the tour computes in float32, not in {runtime.dtype}: leave --dtype out")
    own = out is None
    out = places.models_dir() / "tour" if out is None else out
    if not own and out.exists():
        raise UsageError(f"{out} is there already; give another --out")
    with runtime.active():
        seen = take_tour(model, out, (lambda _: None) if as_json else render.say, device=runtime.device)
    if as_json:
        render.print_json(seen.to_json())
    if not (seen.same_files and seen.same_logits) or seen.damaged:
        ctx.exit(1)
