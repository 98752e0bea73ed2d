"""`mindset generate`: continue a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mindset.cli import failures, options, render
from mindset.graft.runtime import Runtime

if TYPE_CHECKING:
    from mindset.llm.local import LocalClient
    from mindset.llm.request import Options

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
@options.ram_option
@options.count_option
@options.runtime_options
@options.json_option
def generate(
    *,
    model: str,
    prompt: str,
    max_tokens: int,
    temperature: float,
    ram: int | None,
    count: bool,
    decay: float | None,
    runtime: Runtime,
    as_json: bool,
) -> None:
    """Continue PROMPT as raw text, token by token.

    With --ram the slots of DIR stay in its files, and no more than SIZE of them is in RAM at a time (Linux); where
    `mindset memory index` chose an index, it names the slots that are looked at.

    \b
    Example:
      mindset generate smol "Once upon a time" --max-tokens 100 --temperature 0.8 --seed 1
    """
    import asyncio

    from mindset.calls.runs import run
    from mindset.llm.local import LocalClient
    from mindset.llm.request import Options

    told = Options(max_tokens=max_tokens, temperature=temperature, seed=runtime.seed)
    with runtime.active(), run("generate"):
        client = LocalClient(
            model,
            dtype=runtime.torch_dtype,
            device=runtime.device,
            threads=runtime.threads,
            count=count,
            decay=decay,
            ram=ram,
        )
        asyncio.run(_continue(client, prompt, told, as_json=as_json))


async def _continue(client: LocalClient, prompt: str, told: Options, *, as_json: bool) -> None:
    """Tell the text as it comes, or all of it as JSON."""
    from mindset.llm.events import Started, TextPiece
    from mindset.llm.request import Request

    async with client, client.complete(Request(prompt=prompt, options=told)) as stream:
        if as_json:
            render.print_json({"prompt": prompt, "text": (await stream.answer()).text})
            return
        async for event in stream:
            if isinstance(event, Started):
                click.echo(prompt, nl=False)
            elif isinstance(event, TextPiece):
                click.echo(event.text, nl=False)
        click.echo()
