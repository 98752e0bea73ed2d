"""The options that describe a memory, shared by `convert` and `distill`.

Does not know which combinations make sense: the plan checks itself. Invariant: an option that was not given
is not passed on, so the defaults live in `ConversionPlan` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mindset.cli import options

__all__ = ["PLAN_NAMES", "given", "plan_options"]

BANKS = ("mirror", "featural", "associative")
WEIGHTS = ("relu", "gelu", "silu", "distance", "softmax")
PLAN = (
    click.option("--bank", type=click.Choice(BANKS), metavar="KIND", help=f"{', '.join(BANKS)}.  [mirror]"),
    click.option(
        "--slots",
        type=click.IntRange(min=0),
        metavar="N",
        help="New slots a head; with a mirror bank, beside it.  [0]",
    ),
    click.option("--heads", type=click.IntRange(min=1), metavar="N", help="Heads of a bank.  [1]"),
    click.option("--k", type=options.K, help="Slots that answer, the most influential ones.  [all]"),
    click.option("--propose", type=options.PROPOSE, help="Who names the candidates.  [all]"),
    click.option(
        "--candidates", type=click.IntRange(min=1), metavar="N", help="Candidates that the k are picked from."
    ),
    click.option(
        "--weight", type=click.Choice(WEIGHTS), metavar="NAME", help=f"New slots by {', '.join(WEIGHTS)}."
    ),
    click.option("--layers", type=options.LAYERS, help="Layers to convert, as in 0,3,5-9.  [all]"),
    click.option("--skip", type=options.SKIP, help="Small path beside the bank.  [none]"),
)
PLAN_NAMES = ("bank", "slots", "heads", "k", "propose", "candidates", "weight", "layers", "skip")


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--bank --slots --heads --k --propose --candidates --weight --layers --skip`."""
    for option in reversed(PLAN):
        command = option(command)
    return command


def given(values: dict[str, Any]) -> dict[str, Any]:
    """What the user gave; `--k all` gives None, which is also the plan's default."""
    return {name: value for name, value in values.items() if value is not None}
