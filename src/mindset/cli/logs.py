"""`mindset logs`: the calls of language models, found, shown, drawn and added up; where they are kept."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, get_args

import click

from mindset.calls.call import Status
from mindset.cli import failures, logs_text, logs_upkeep, options, render
from mindset.cli.opened_log import needed_log, opened_log
from mindset.cli.times import TIME

if TYPE_CHECKING:
    from mindset.calls.costs import By
    from mindset.calls.listing import Wanted

__all__ = ["logs"]

MODEL = click.option("-m", "--model", metavar="MODEL", help="Calls of this model only.")
RUN = click.option("--run", metavar="RUN", help="Calls of this run only, by its id or name.")
SINCE = click.option("--since", type=TIME, help="Calls since a day, or of the last 12h, 7d, 2w.")


@click.group(
    cls=failures.Group,
    invoke_without_command=True,
    short_help="List the calls of language models, and look into them.",
)
@click.option(
    "-q", "--query", "text", metavar="TEXT", help='Words that occur: paris "a phrase" -without begin*'
)
@click.option(
    "-n", "--count", type=click.IntRange(min=0), default=20, metavar="N", help="How many; 0: all.  [20]"
)
@MODEL
@click.option(
    "--status", type=click.Choice(get_args(Status)), metavar="NAME", help=", ".join(get_args(Status))
)
@RUN
@SINCE
@options.json_option
@click.pass_context
def logs(
    ctx: click.Context,
    text: str | None,
    count: int,
    model: str | None,
    status: str | None,
    run: str | None,
    since: str | None,
    as_json: bool,
) -> None:
    """List the calls of language models, newest first, and look into them.

    Every call of every client is here, however it ended. --json tells them in full; `show` one of them with the
    answer as it came.

    \b
    Example:
      mindset logs -q paris -n 5
      mindset logs --status failed --since 7d
    """
    if ctx.invoked_subcommand is not None:
        return
    from mindset.calls.listing import Wanted

    _print_list(Wanted(text, model, status, run, since, count or None), as_json)


def _print_list(wanted: Wanted, as_json: bool) -> None:
    from mindset.calls.listing import listed
    from mindset.calls.showing import exported

    log = opened_log()
    if as_json:
        render.print_json([] if log is None else list(exported(log, wanted)))
        return
    found = [] if log is None else listed(log, wanted)
    width = shutil.get_terminal_size().columns
    for line in found:
        for told in logs_text.line(line, width):
            render.say(told)
    if not found:
        render.say("no calls yet" if log is None else "no such calls")


@logs.command("show")
@click.argument("call", metavar="ID", type=int)
@options.json_option
def show(call: int, as_json: bool) -> None:
    """Show all that is known of one call.

    \b
    Example:
      mindset logs show 12
    """
    from mindset.calls.showing import shown

    told = shown(needed_log(), call)
    if as_json:
        render.print_json(told)
        return
    for line in logs_text.call(told):
        render.say(line)


@logs.command("tree")
@click.argument("node", metavar="ID")
@options.json_option
def tree(node: str, as_json: bool) -> None:
    """Draw the dialog of a call, with its forks; ID may also begin a node's hash.

    \b
    Example:
      mindset logs tree 12
    """
    from mindset.calls.drawing import drawn, node_named

    log = needed_log()
    found = drawn(log, node_named(log, node))
    if as_json:
        told = [asdict(one.node) | {"calls": one.calls, "left_out": one.left_out} for one in found]
        render.print_json(told)
        return
    for one in found:
        render.say(logs_text.clean(one.line))


@logs.command("cost")
@click.option(
    "--by", type=click.Choice(["model", "day", "run"]), default="model", help="What a line is of.  [model]"
)
@MODEL
@RUN
@SINCE
@options.json_option
def cost(by: By, model: str | None, run: str | None, since: str | None, as_json: bool) -> None:
    """Add up what calls cost: money where it is known, seconds of this machine where it computed.

    Prices are those of the day of each call, from the list of genai-prices.

    \b
    Example:
      mindset logs cost --by day --since 30d
    """
    from mindset.calls.costs import costs
    from mindset.calls.listing import Wanted

    log = opened_log()
    found = [] if log is None else costs(log, by, Wanted(model=model, run=run, since=since))
    if as_json:
        render.print_json([asdict(one) for one in found])
        return
    columns = {by: "left"} | ({"id": "left"} if by == "run" else {})
    numbers = dict.fromkeys(("calls", "not ok", "read", "written", "cost", "local s"), "right")
    render.print_table(columns | numbers, logs_text.cost_rows(found, by))
    if unpriced := sum(one.unpriced for one in found):
        render.say(f"{unpriced:,} calls are not in the cost: nobody knows their price")


@logs.command("path")
@options.json_option
def path(as_json: bool) -> None:
    """Say where the calls are kept: a file, or a database's URL without its password.

    \b
    Example:
      mindset logs path
    """
    from mindset.calls.place import file_of, log_url

    url = log_url()
    place = file_of(url) or url.render_as_string()
    if as_json:
        render.print_json({"path": place})
    else:
        render.say(str(place))


for command in (logs_upkeep.replay, logs_upkeep.verify, logs_upkeep.prune):
    logs.add_command(command)
