"""`mindset generate`: continue a text."""

from __future__ import annotations

import click

from mindset.cli import failures, options, render
from mindset.graft.runtime import Runtime

__all__ = ["generate"]


@click.command(cls=failures.Command, short_help="Continue a text.")
@click.argument("model", metavar="DIR|MODEL")
@click.argument("prompt")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=64, metavar="N", help="Tokens at most.  [64]"
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="T",
    help="0 takes the likeliest token.  [0]",
)
@options.count_option
@options.runtime_options
@options.json_option
def generate(
    *,
    model: str,
    prompt: str,
    max_tokens: int,
    temperature: float,
    count: bool,
    runtime: Runtime,
    as_json: bool,
) -> None:
    """Continue PROMPT as raw text, token by token.

    \b
    Example:
      mindset generate smol "Once upon a time" --max-tokens 100 --temperature 0.8 --seed 1
    """
    from mindset.probe.generate import generate as continue_text

    with runtime.active():
        pieces = continue_text(
            model,
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=runtime.seed,
            dtype=runtime.torch_dtype,
            device=runtime.device,
            count=count,
        )
        if as_json:
            render.print_json({"prompt": prompt, "text": "".join(pieces)})
            return
        click.echo(prompt, nl=False)
        for piece in pieces:
            click.echo(piece, nl=False)
        click.echo()
