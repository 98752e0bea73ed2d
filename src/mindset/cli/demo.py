"""`mindset demo`: the whole story on a real model, from the package index to a distilled memory and its report.

Does not know how anything is computed. Invariant: what an earlier run left in --out is used again: a finished
demo prints its report at once, an interrupted one goes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from mindset.cli import failures, options, progress, render
from mindset.graft.runtime import Runtime, multiplies_bfloat16

if TYPE_CHECKING:
    from mindset.distill.report import Report
    from mindset.distill.settings import DistillSettings

__all__ = ["demo"]

SOURCE = "smollm2"
K = 384
PROMPT = "The capital of France is"
SLOTS_SHOWN = 8
MINUTES = 6.0


@click.command(cls=failures.Command, short_help="See it all on a real model in 15 minutes.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=MINUTES,
    metavar="M",
    help=f"Minutes of training.  [{MINUTES:g}]",
)
@click.option(
    "--out", type=options.FOLDER, metavar="DIR", help="Folder to write.  [demo, in your data folder]"
)
@options.runtime_options
@options.json_option
def demo(*, minutes: float, out: Path | None, runtime: Runtime, as_json: bool) -> None:
    """See it all on a real model in 15 minutes.

    Gets SmolLM2-135M, puts a memory in place of its feed-forward blocks, checks that this loses nothing, shows
    what reading fewer slots costs and which slots spoke for a word, and trains the memory to win back what was
    lost. Run it again to go on where it was stopped, or to see the report again.

    \b
    Example:
      mindset demo
      mindset demo --minutes 20 --out better
    """
    from mindset import places
    from mindset.errors import UsageError

    if runtime.dtype not in (None, "float32"):
        raise UsageError(f"the demo trains in float32, not in {runtime.dtype}: leave --dtype out")
    out = places.models_dir() / "demo" if out is None else out
    settings = _settings(minutes, runtime)
    report, seen = _finished(out, settings), None
    if report is None:
        with runtime.active(), _going_on(out):
            seen = _first_look(out, settings, runtime, as_json)
            report = _distil(out, settings, runtime, as_json)
    elif not as_json:
        render.say(f"This demo has run already; delete {out} to run it again.\n")
    if as_json:
        render.print_json({"first_look": seen, "report": report.to_json()})
        return
    render.say(f"{report.to_text()}\n\n{_next(out)}")


def _settings(minutes: float, runtime: Runtime) -> DistillSettings:
    from mindset.distill.settings import DistillSettings
    from mindset.graft.plan import ConversionPlan

    return DistillSettings(
        plan=ConversionPlan(k=K, skip="affine", seed=runtime.seed),
        data=("self", "stdlib"),
        minutes=minutes,
        batch=4,
        local_share=0.0,  # the closed form has done its work, and six minutes are few
        lr_end_to_end=3e-4,
        precision="bf16-mixed" if multiplies_bfloat16(runtime.device) else "32",
        checkpoint_every=20,
        seed=runtime.seed,
    )


def _finished(out: Path, settings: DistillSettings) -> Report | None:
    """The report of an earlier run in `out`, if it ended."""
    from mindset.distill.report import Report
    from mindset.errors import MissingError, RunMismatchError

    try:
        report = Report.read(out)
    except MissingError:
        return None
    if not report.is_of(settings):
        raise RunMismatchError(
            f"{out} holds a run with other settings; give another --out, or delete it to begin anew"
        )
    return report


@contextmanager
def _going_on(out: Path) -> Iterator[None]:
    """Say that nothing is lost when a person stops it; Lightning turns Ctrl-C into an exit."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        click.echo(f"\nStopped; the same command goes on from what is in {out}.", err=True)
        raise


def _first_look(out: Path, settings: DistillSettings, runtime: Runtime, as_json: bool) -> dict[str, Any]:
    """The model converted and looked at, before any training."""
    from mindset.distill.report import measure_before
    from mindset.graft.convert import build_student, lossless_difference
    from mindset.graft.sources import load_teacher
    from mindset.probe.why import explain

    tell = _Teller(silent=as_json)
    tell(f"1  Getting {SOURCE}")
    with progress.progress(silent=as_json) as report:
        loaded = load_teacher(SOURCE, device=runtime.device, progress=progress.fractions(report))
    tell(
        f"   {loaded.model.num_parameters():,} parameters, in {loaded.path}",
        *(f"   {n}" for n in loaded.notes),
    )
    tell("2  A memory in place of every feed-forward block")
    student = build_student(loaded.model, settings.plan)
    difference = lossless_difference(loaded.model, student)
    tell(f"   Read whole, it is the same model: the largest difference of a logit is {difference:.1e}.")
    tell("3  What reading fewer slots costs, untrained")
    with progress.progress(silent=as_json) as report:
        look = measure_before(student, loaded.model, loaded.tokenizer, out / "run", report)
    tell(*_gap_lines(look))
    tell(f"4  Which slots spoke for the word after {PROMPT!r}, at k = {K}")
    answer = explain(student, loaded.tokenizer, PROMPT, SLOTS_SHOWN)
    tell(*(f"   {line}".rstrip() for line in answer.to_text().splitlines()))
    return {"lossless_difference": difference, "untrained": look.to_json(), "why": answer.to_json()}


def _distil(out: Path, settings: DistillSettings, runtime: Runtime, as_json: bool) -> Report:
    from mindset.distill.run import distill

    sources = " and ".join(settings.data)
    _Teller(silent=as_json)(
        f"5  Training at k = {K} for {settings.minutes:g} minutes on {sources}, in {out}",
        "   Stop it whenever you like: the same command goes on.",
    )
    with progress.progress(silent=as_json) as report:
        made = distill(SOURCE, out, settings, resume=True, progress=report, device=runtime.device)
    return cast("Report", made)


class _Teller:
    """Lines on stdout, or none."""

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent

    def __call__(self, *lines: str) -> None:
        if not self.silent:
            render.say("\n".join(lines))


def _gap_lines(look: Any) -> Iterator[str]:
    yield f"   on {look.tokens:,} tokens, where the teacher needs {look.teacher_bits_per_byte:.3f} bits per byte"
    for k, gap in look.gaps.items():
        name = f"all {k:,}" if k == look.n_slots else f"{k:,}"
        yield f"   k = {name:<10} {gap.estimate:+.3f}   ({gap.low:+.3f} to {gap.high:+.3f})"


def _next(out: Path) -> str:
    """What to type now."""
    folder = shlex.quote(str(out))
    return "\n".join(
        [
            "Next:",
            f'  mindset why {folder} "{PROMPT}"',
            f'  mindset generate {folder} "Once upon a time"',
            f"  mindset eval {folder}",
            f"  tensorboard --logdir {folder}",
        ]
    )
