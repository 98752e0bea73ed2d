"""`mindset why`: the slots that spoke for the next token."""

from __future__ import annotations

from pathlib import Path

import click

from mindset.cli import failures, options, render
from mindset.graft.runtime import Runtime

__all__ = ["why"]


@click.command(cls=failures.Command, short_help="Show the slots that spoke for the next token.")
@options.model_folder
@click.argument("prompt")
@click.option("--top", type=click.IntRange(min=1), default=10, metavar="N", help="Slots to show.  [10]")
@options.runtime_options
@options.json_option
def why(folder: Path, prompt: str, top: int, runtime: Runtime, as_json: bool) -> None:
    """Show the slots that spoke for the next token of PROMPT.

    Influence is how much a slot adds (its weight times the length of its value); `promotes` are the tokens
    that its value favours.

    \b
    Example:
      mindset why smol "The capital of France is"
    """
    from mindset.probe.why import why as explain

    with runtime.active():
        answer = explain(folder, prompt, top=top, dtype=runtime.torch_dtype, device=runtime.device)
    if as_json:
        render.print_json(answer.to_json())
    else:
        render.say(answer.to_text())
