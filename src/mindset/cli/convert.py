"""`mindset convert`: a memory in place of a model's FF blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mindset.cli import failures, options, plan, render
from mindset.graft.runtime import Runtime

if TYPE_CHECKING:
    from mindset.graft.convert import ConversionReport

__all__ = ["convert"]


@click.command(cls=failures.Command, short_help="Put a memory in place of a model's FF blocks.")
@click.argument("model", metavar="MODEL")
@options.out_option
@plan.plan_options
@options.runtime_options
@options.json_option
def convert(model: str, out: Path, runtime: Runtime, as_json: bool, **memory: Any) -> None:
    """Put a memory in place of a model's FF blocks.

    With the defaults, a mirror bank read at k = all, the result computes what MODEL computes. A smaller k
    reads less and costs bits per byte; `mindset distill` wins most of them back.

    \b
    Example:
      mindset convert smollm2 --out smol --k 384
    """
    from mindset.graft.convert import convert as convert_model
    from mindset.graft.plan import ConversionPlan

    wanted = ConversionPlan(**plan.given(memory), seed=runtime.seed)
    with runtime.active():
        report = convert_model(model, out, wanted, dtype=runtime.torch_dtype, device=runtime.device)
    if as_json:
        render.print_json(report.to_json())
        return
    _print(report)
    render.say(f"\nNext: mindset eval {out} --against {model}")


def _print(report: ConversionReport) -> None:
    difference = report.lossless_difference
    render.print_figures(
        [
            ("layers with a memory", f"{len(report.layers):,}"),
            ("slots a layer", f"{report.slots_per_layer:,}"),
            ("k", "all" if report.k is None else f"{report.k:,}"),
            ("largest difference of a logit at k = all", "-" if difference is None else f"{difference:.1e}"),
            ("parameters of the teacher", f"{report.teacher_dense_parameters:,}"),
            ("parameters still dense", f"{report.dense_parameters:,}"),
            ("parameters in memory", f"{report.memory_parameters:,}"),
            ("on disk", render.size(report.bytes_on_disk)),
        ]
    )
    for note in report.notes:
        render.say(note)
