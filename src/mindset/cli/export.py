"""`mindset export`: a plain Hugging Face folder of a model made by mindset."""

from __future__ import annotations

from pathlib import Path

import click

from mindset.cli import failures, options, render

__all__ = ["export"]


@click.command(cls=failures.Command, short_help="Write a plain Hugging Face folder.")
@options.model_folder
@click.option("--dense", is_flag=True, required=True, help="Turn the banks back into FF blocks.")
@options.out_option
@options.json_option
def export(folder: Path, dense: bool, out: Path, as_json: bool) -> None:
    """Write a plain Hugging Face folder, where a memory can be said as FF blocks.

    That is so for mirror banks read at k = all; otherwise the command says what stands in the way.

    \b
    Example:
      mindset export smol --dense --out smol-plain
    """
    from mindset.graft.export import export_dense

    if not dense:
        raise click.UsageError("--dense is the only form there is")
    export_dense(folder, out)
    if as_json:
        render.print_json({"path": out, "form": "dense"})
    else:
        render.say(f"{out} opens with transformers alone")
