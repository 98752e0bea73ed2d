"""`mindset distill`: train a memory to speak like its teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mindset.cli import failures, options, plan, progress, render
from mindset.graft.runtime import Runtime

__all__ = ["distill"]

# Names are those of DistillSettings, which also has the defaults and checks how they go together.
TRAINING = (
    click.option(
        "--data",
        multiple=True,
        metavar="SOURCE",
        help="self, stdlib, FILE or FOLDER, with =WEIGHT where wanted; repeat to mix.  [self]",
    ),
    click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Steps of all stages together."),
    click.option(
        "--minutes",
        type=click.FloatRange(min=0, min_open=True),
        metavar="M",
        help="Minutes of training, instead of --steps.",
    ),
    click.option(
        "--train",
        "trained",
        type=click.Choice(["memory", "all", "attention"]),
        help="What is trained.  [memory]",
    ),
    click.option(
        "--local-share", type=click.FloatRange(0, 1), metavar="X", help="Share of the local stage.  [0.2]"
    ),
    click.option(
        "--heal-steps", type=click.IntRange(min=0), metavar="N", help="Steps on text afterwards.  [0]"
    ),
    click.option(
        "--sample-temperature", type=float, metavar="X", help="Temperature at which self is drawn.  [1]"
    ),
    click.option("--batch", type=click.IntRange(min=1), metavar="N", help="Sequences a step.  [8]"),
    click.option("--seq-len", type=click.IntRange(min=2), metavar="N", help="Tokens a sequence.  [256]"),
    click.option(
        "--precision",
        type=click.Choice(["32", "bf16-mixed"]),
        help="bf16-mixed: faster where the processor multiplies bfloat16.  [32]",
    ),
    click.option("--lr", type=float, metavar="X", help="Peak learning rate of the local stage.  [0.001]"),
    click.option("--lr-end-to-end", type=float, metavar="X", help="The same end to end.  [0.0005]"),
)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What of `DistillSettings` a person sets by hand."""
    for option in reversed(TRAINING):
        command = option(command)
    return command


@click.command(cls=failures.Command, short_help="Train a memory to speak like its teacher.")
@click.argument("model", metavar="MODEL|DIR")
@options.out_option
@training_options
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@plan.plan_options
@options.runtime_options
@options.json_option
def distill(*, model: str, out: Path, runtime: Runtime, resume: bool, as_json: bool, **values: Any) -> None:
    """Train a memory to speak like its teacher; MODEL is converted first, DIR as it is.

    A run is kept in --out: its settings, checkpoints, TensorBoard log, report.md with plots, and the model.

    \b
    Example:
      mindset distill smollm2 --out smol --k 384 --data self --minutes 10
      mindset distill smollm2 --out smol --k 384 --data self --minutes 10 --resume
      tensorboard --logdir smol
      torchrun --nproc-per-node 2 -m mindset distill smollm2 --out smol --device cuda --steps 2000
    """
    from mindset.distill.settings import DistillSettings
    from mindset.graft.plan import ConversionPlan

    wanted = plan.given({name: values.pop(name) for name in plan.PLAN_NAMES})
    training = plan.given({name: value for name, value in values.items() if value != ()})
    settings = DistillSettings(
        plan=ConversionPlan(**wanted, seed=runtime.seed), seed=runtime.seed, **training
    )
    from mindset.distill.run import distill as distill_model

    with runtime.active(), progress.progress(silent=as_json) as report:
        result = distill_model(model, out, settings, resume, progress=report, device=runtime.device)
    if result is None:  # a helper of torchrun's: the first process speaks
        return
    if as_json:
        render.print_json(result.to_json())
        return
    render.say(result.to_text())
    render.say(f'\nNext: mindset why {out} "Once upon a time"')
