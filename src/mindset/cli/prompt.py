"""`mindset prompt`: one question, for scripts."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mindset.cli import asking, failures, options, render
from mindset.errors import DataError, UsageError

if TYPE_CHECKING:
    from mindset.calls.canonical import Json
    from mindset.cli.chat.screen import Screen
    from mindset.llm.turn import Turn

__all__ = ["prompt"]

INTERRUPTED = 130
"""What shells exit with after Ctrl-C."""


@click.command(cls=failures.Command, short_help="Ask a model one thing, for scripts.")
@click.argument("text", required=False)
@asking.asking_options
@click.option("--schema", type=options.FILE, metavar="FILE", help="JSON schema that the answer must fit.")
@click.option("-c", "--continue", "go_on", is_flag=True, help="Go on where something was said last.")
@click.option("--cid", type=click.IntRange(min=1), metavar="ID", help="Go on with this conversation.")
@options.json_option
def prompt(
    *,
    text: str | None,
    asking: asking.Asking,
    schema: Path | None,
    go_on: bool,
    cid: int | None,
    as_json: bool,
) -> None:
    """Ask TEXT, through the model's chat template, and print the answer.

    TEXT is - to read it from stdin; what comes through a pipe beside a TEXT stands below it. The answer alone goes to
    stdout. Exit code 0: answered; 1: not; 2: wrong usage; 130: stopped by Ctrl-C, the part that came is in the log.

    \b
    Example:
      mindset prompt "Who wrote Dracula?"
      git diff | mindset prompt "Write a commit message for this." -o max_tokens 60
      mindset prompt - --schema person.json --json < letter.txt
    """
    from mindset.calls.log import CallLog
    from mindset.calls.runs import run
    from mindset.cli.answers import document
    from mindset.cli.chat.screen import Screen, is_plain
    from mindset.cli.conversation import conversation
    from mindset.cli.edge import Edge
    from mindset.cli.spending import spent_on, total

    question = _question(text)
    if schema is not None:
        asking = replace(asking, options=replace(asking.options, schema=_schema(schema)))
    log = CallLog.open()
    with (
        run("prompt"),
        Edge() as edge,
        conversation(log, edge, asking, go_on=go_on, cid=cid, silent=as_json) as held,
    ):
        screen = Screen(plain=is_plain(), person=sys.stdout.isatty())
        turn = held.dialog.say(question)
        stopped = False
        try:
            edge.run(_answer(turn, screen, pieces=asking.stream and not as_json, whole=not as_json))
        except KeyboardInterrupt:
            stopped = True
        if turn.answer is not None and as_json:
            spent = total([spent_on(log, call) for call in turn.calls])
            render.print_json(document(held.dialog, spent))
        if stopped:
            kept = f"; what had come is kept as call {turn.answer.call_id}" if turn.answer else ""
            click.echo(f"Stopped{kept}", err=True)
            raise click.exceptions.Exit(INTERRUPTED)


async def _answer(turn: Turn, screen: Screen, *, pieces: bool, whole: bool) -> None:
    """Print it as it comes, or as a whole, or not at all."""
    from mindset.llm.events import TextPiece

    said: list[str] = []
    try:
        async with turn:
            async for event in turn:
                if isinstance(event, TextPiece):
                    screen.piece(event.text) if pieces else said.append(event.text)
    finally:
        screen.piece("".join(said) if whole else "")
        screen.end()


def _question(text: str | None) -> str:
    """What is asked: the text, what is piped in, or both."""
    if text == "-" or (text is None and not sys.stdin.isatty()):
        question = sys.stdin.read()
    elif text is not None and _is_piped():
        piped = sys.stdin.read()
        question = f"{text}\n\n{piped}" if piped.strip() else text
    else:
        question = text or ""
    if not question.strip():
        raise UsageError("there is nothing to ask: give TEXT, or - and something on stdin")
    return question


def _is_piped() -> bool:
    """Whether stdin is a pipe or a file; a terminal or nothing at all is not read unasked."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # a stream in memory
        return not sys.stdin.isatty()
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _schema(path: Path) -> dict[str, Json]:
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(schema, dict):
        raise DataError(f"{path} is no JSON schema but a {type(schema).__name__}: a schema is an object")
    return schema
