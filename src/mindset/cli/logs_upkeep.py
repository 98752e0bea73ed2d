"""`mindset logs replay`, `verify` and `prune`: a recorded run answers again; the log is checked, and kept small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from mindset.cli import failures, options, render
from mindset.cli.opened_log import needed_log
from mindset.cli.times import TIME

__all__ = ["prune", "replay", "verify"]

SHOWN = 20
"""Problems, and hashes of deleted nodes, that are told one by one."""


@click.command("replay", cls=failures.Command)
@options.json_option
@click.argument("run", metavar="RUN")
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def replay(ctx: click.Context, run: str, command: tuple[str, ...], as_json: bool) -> None:
    """Run COMMAND again with every model's answers taken from RUN.

    RUN is the id or the name of a run. No model is loaded and none is asked; the answers are those of RUN, byte for
    byte. What RUN never asked stops the command, and is shown beside what is most like it. The exit code is that of
    the command.

    \b
    Example:
      mindset logs replay "experiment 3" -- python experiment.py
    """
    from mindset.calls.rerun import rerun

    done = rerun(needed_log(), run, command, capture=as_json)
    if as_json:
        render.print_json(asdict(done))
    else:
        click.echo(f"{done.answered:,} of the {done.recorded:,} calls of {done.run} answered again", err=True)
    ctx.exit(done.exit_code)


@click.command("verify", cls=failures.Command)
@options.json_option
@click.pass_context
def verify(ctx: click.Context, as_json: bool) -> None:
    """Derive every hash of the dialog tree again, and look at every call.

    Nodes that were deleted are named; they are no problem. Exit code 1 if something is not what it should be.

    \b
    Example:
      mindset logs verify
    """
    from mindset.calls.checking import check

    found = check(needed_log())
    if as_json:
        render.print_json(asdict(found))
    else:
        for problem in found.problems[:SHOWN]:
            render.say(problem)
        _tell_more(found.problems)
        for node in found.tombstones[:SHOWN]:
            render.say(f"node {node} was deleted")
        _tell_more(found.tombstones)
        render.say(f"{found.calls:,} calls, {found.nodes:,} nodes, {len(found.problems):,} problems")
    ctx.exit(1 if found.problems else 0)


@click.command("prune", cls=failures.Command)
@click.option("--older-than", "before", type=TIME, help="Let go of calls before a day, or older than 30d.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="Let go of all but the last N calls.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@options.json_option
def prune(before: str | None, keep: int | None, dry_run: bool, as_json: bool) -> None:
    """Let go of old calls, and of what only they needed.

    What later calls and conversations go on from stays. There is no way back.

    \b
    Example:
      mindset logs prune --older-than 90d --dry-run
      mindset logs prune --older-than 90d
    """
    from mindset.calls import pruning

    log = needed_log()
    gone = pruning.prune(log, before=before, keep=keep, dry=dry_run)
    saved = None if dry_run or not gone.calls else pruning.compact(log)
    if as_json:
        render.print_json(asdict(gone) | {"dry_run": dry_run, "bytes": saved})
    elif dry_run:
        render.say(f"{gone.calls:,} calls would go")
    else:
        room = "" if saved is None else f", {render.size(saved)}"
        render.say(f"{gone.calls:,} calls, {gone.nodes:,} nodes, {gone.runs:,} runs{room} gone")


def _tell_more(told: Sequence[str]) -> None:
    if len(told) > SHOWN:
        render.say(f"and {len(told) - SHOWN:,} more; all of them with --json")
