"""How a command fails: exit code 2 for wrong usage, 1 for the rest, one sentence on stderr, no traceback.

Does not know the commands. Invariant: only errors raised on purpose, and the system's own about files, become
a sentence; anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import click

from mindset.errors import MindsetError, UsageError

__all__ = ["Command", "Group", "as_sentence"]


@contextmanager
def as_sentence(ctx: click.Context) -> Iterator[None]:
    """Turn an error of the library, or the system's about a file, into click's own."""
    try:
        yield
    except UsageError as error:
        raise click.UsageError(str(error), ctx) from error
    except MindsetError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.errno == errno.EPIPE or error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        raise click.ClickException(f"{where}{error.strerror}") from error


class Command(click.Command):
    """A command that fails in one sentence."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        with as_sentence(ctx):
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands, itself one."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> object:
        """Run the group or the command named."""
        with as_sentence(ctx):
            return super().invoke(ctx)
