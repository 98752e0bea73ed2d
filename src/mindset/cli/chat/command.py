"""`mindset chat`: talk to a model, go back, fork, and go on tomorrow."""

from __future__ import annotations

import click

from mindset.cli import asking, failures, options

__all__ = ["chat"]

HISTORY_FILE = "chat_history"


@click.command(cls=failures.Command, short_help="Talk to a model; go back, fork, go on tomorrow.")
@asking.asking_options
@click.option("-c", "--continue", "go_on", is_flag=True, help="Go on where something was said last.")
@click.option("--cid", type=click.IntRange(min=1), metavar="ID", help="Go on with this conversation.")
@options.json_option
def chat(*, asking: asking.Asking, go_on: bool, cid: int | None, as_json: bool) -> None:
    """Talk to a model on a terminal, or line by line through a pipe.

    Everything is kept in the log. /help lists the commands of a chat: /back, /edit, /fork, /switch and /tree move in
    the dialog, /chats lists conversations, /why shows how sure the model was. Without a terminal every line is a turn,
    only answers go to stdout, and with --json each is one line of JSON.

    \b
    Example:
      mindset chat
      mindset chat -c
      mindset chat -m openai:gpt-5-mini -s "Answer in one sentence." -o temperature 0.2
    """
    from mindset import places
    from mindset.calls.log import CallLog
    from mindset.calls.runs import run
    from mindset.cli.chat.reading import reader
    from mindset.cli.chat.screen import JsonScreen, Screen, is_plain
    from mindset.cli.chat.session import Session
    from mindset.cli.conversation import conversation
    from mindset.cli.edge import Edge

    log = CallLog.open()
    plain = as_json or is_plain()
    keys = reader(
        places.home() / HISTORY_FILE,
        lambda line: session.complete(line),  # noqa: PLW0108 - there is none yet
        plain=plain,
    )
    with (
        run("chat"),
        Edge() as edge,
        conversation(
            log, edge, asking, go_on=go_on, cid=cid, insight=True, ask_first=keys.prompts, silent=as_json
        ) as held,
    ):
        screen = JsonScreen() if as_json else Screen(plain=plain, person=keys.prompts)
        session = Session(edge, held, keys, screen, stream=asking.stream)
        session.run()
        if session.failed and not keys.prompts:
            raise click.exceptions.Exit(1)
