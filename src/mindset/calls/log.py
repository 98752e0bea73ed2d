"""The log: every call of every client is a row before anything is sent, and says at its end how it ended.

    log = CallLog.open()
    call = log.begin(asked)            # committed: the row is there, `running`
    log.note(call, pieces)             # committed: what has been said so far
    log.finish(call, outcome, pieces)  # the rest, the answer, the price: all or nothing

What was committed survives a kill: a row whose process ended while it ran becomes `failed`, with the pieces that were
noted as its answer, when the log is next opened for writing. Secrets are taken out before anything is hashed or stored.
One object a database and process, which threads share and which a fork may go on using. Does not know clients, models
or events; an answer's pieces are JSON to it.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import sqlalchemy as sa

from mindset.calls import ended, place, recorded, rows
from mindset.calls.call import Asked, NewNode, Outcome, Piece
from mindset.calls.prices import FREE, Price, full_name, priced
from mindset.calls.recorded import Recorded
from mindset.calls.redact import Redactor, Stream
from mindset.calls.runs import Run, current
from mindset.calls.schema import CALLS, PIECES, SCHEMA
from mindset.calls.tree import Tree, chain
from mindset.calls.words import new_words
from mindset.database.engine import open_engine, reading, writing
from mindset.errors import MissingError, ReadOnlyError, UsageError

__all__ = ["CallLog"]


@dataclass
class _Open:
    """A call that runs, as the process that makes it knows it."""

    asked: str | None
    """Hash of the last node that was asked."""
    prompt: str
    """Words to find it by."""
    model: str
    """MODEL, by which its price is found."""
    stream: Stream
    rows: int = 0
    """Rows of pieces that are stored."""
    unwritten: list[bytes] = field(default_factory=list)
    """Rows that are ready to be stored."""

    def say(self, pieces: Sequence[Piece], *, last: bool = False) -> None:
        """Take pieces in."""
        if (row := self.stream.row(pieces, last=last)) is not None:
            self.unwritten.append(row)

    def price(self, outcome: Outcome) -> Price | None:
        """What it costs; None where nobody knows."""
        if outcome.replayed_from is not None or outcome.status == "refused":
            return FREE
        return priced(self.model, outcome.usage, endpoint=outcome.endpoint, answered_by=outcome.answered_by)

    def written(self) -> None:
        """All that was ready is stored."""
        self.rows, self.unwritten = self.rows + len(self.unwritten), []


class CallLog:
    """The log in one database."""

    _opened: ClassVar[dict[tuple[str, bool], tuple[CallLog, object]]] = {}
    _opening: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, engine: sa.Engine, *, read_only: bool = False) -> None:
        """Use `engine`'s database, made or migrated unless `read_only`; `open` is what is wanted nearly always."""
        self.engine, self.read_only = engine, read_only
        self.redactor = Redactor()
        self.tree = Tree(engine)
        self._calls: dict[int, _Open] = {}
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._process: int | None = None
        self._runs: set[str] = set()
        if read_only:
            SCHEMA.check(engine)
        else:
            SCHEMA.migrate(engine)
            ended.fail_the_dead(engine)

    @classmethod
    def open(cls, url: str | None = None, *, read_only: bool = False) -> CallLog:
        """The log at a database URL; None: where `MINDSET_CALLS` says, or `calls.sqlite` in the user's folder.

        A process that opens it again gets the same object.
        """
        parsed = place.log_url(url)
        name = (parsed.render_as_string(hide_password=False), read_only)
        with cls._opening:
            known, file = cls._opened.get(name, (None, None))
            if known is not None and file == place.identity(parsed):
                return known
            if known is not None:  # its file is gone, or another one
                known.engine.dispose()
            if not read_only:
                place.make_place(parsed)
            engine = open_engine(parsed, read_only=read_only)
            try:
                opened = cls(engine, read_only=read_only)
            except BaseException:
                engine.dispose()
                raise
            cls._opened[name] = (opened, place.identity(parsed))
            return opened

    def close(self) -> None:
        """Let go of the database; the next `open` opens it anew."""
        with self._opening:
            for name in [name for name, (log, _) in self._opened.items() if log is self]:
                del self._opened[name]
        self.engine.dispose()

    @classmethod
    def close_all(cls) -> None:
        """Close every log that this process has open."""
        for log, _ in list(cls._opened.values()):
            log.close()

    # ---- a call -------------------------------------------------------------------------------------------------

    def begin(self, asked: Asked) -> int:
        """A row for a call that is about to be made, in the current run; returns its id."""
        asked, run = self.redactor.asked(asked), current()
        try:
            call, tip = self._begin(asked, run)
        except sa.exc.IntegrityError:  # somebody pruned our run, or there is no such parent
            self._enter()
            try:
                call, tip = self._begin(asked, run)
            except sa.exc.IntegrityError as error:
                raise MissingError(f"there is no call {asked.parent} in the log to be the parent") from error
        name = full_name(asked.client, asked.model)
        self._calls[call] = _Open(tip, new_words(asked.nodes), name, Stream(self.redactor))
        return call

    def note(self, call: int, pieces: Sequence[Piece]) -> None:
        """What has been said since the last time; it is kept from now on.

        Pieces that may hold the beginning of a secret are kept back until the next time.
        """
        running = self._running(call)
        running.say(pieces)
        if not running.unwritten:
            return
        with self._writing() as connection:
            rows.add_pieces(connection, call, running.rows, running.unwritten)
        running.written()

    def finish(self, call: int, outcome: Outcome, pieces: Sequence[Piece] = ()) -> None:
        """How a call ended, and what was said since the last time."""
        if outcome.status == "running":
            raise UsageError("a call does not end as 'running'; say ok, failed, cancelled or refused")
        running = self._running(call)
        outcome = self.redactor.outcome(outcome)
        running.say(pieces, last=True)
        price = running.price(outcome)
        with self._writing() as connection:
            if running.unwritten:
                rows.add_pieces(connection, call, running.rows, running.unwritten)
            rows.end(connection, call, running.asked, running.prompt, outcome, price)
        self._calls.pop(call, None)

    # ---- a replay -----------------------------------------------------------------------------------------------

    def run_id(self, run: str) -> str:
        """The id of a run, given by it or by the name of the latest such run, the current one aside."""
        with self._reading() as connection:
            return recorded.find_run(connection, run, current().id)

    def recorded(self, run: str, key: str | Asked, nth: int) -> Recorded | None:
        """The `nth` call, from 0, with this key in a run (its id or name); None: that run asked it less often.

        The key is that of what was asked without its secrets: give an `Asked`, or the key of `redactor.asked(...)`.
        """
        wanted = key if isinstance(key, str) else self.redactor.asked(key).key
        with self._reading() as connection:
            found = recorded.find_run(connection, run, current().id)
            return recorded.nth(connection, found, wanted, nth)

    def nearest(self, run: str, asked: Asked) -> Recorded | None:
        """The call of a run (its id or name) that asked what is most like `asked`; None: it made no call."""
        asked = self.redactor.asked(asked)
        with self._reading() as connection:
            return recorded.nearest(connection, recorded.find_run(connection, run, current().id), asked)

    def call(self, call: int) -> Recorded:
        """One call by its id."""
        with self._reading() as connection:
            return recorded.recorded(connection, call)

    # ---- inside -------------------------------------------------------------------------------------------------

    def _begin(self, asked: Asked, run: Run) -> tuple[int, str | None]:
        with self._writing() as connection:
            process, runs = self._process, self._runs
            if process is None:
                process = rows.enter_process(connection, self.redactor)
            if run.id not in runs:
                rows.enter_run(connection, replace(run, name=self.redactor.text(run.name)), process)
            begun = rows.begin(connection, asked, run.id, process)
        self._process = process
        runs.add(run.id)
        return begun

    def _running(self, call: int) -> _Open:
        """A call that runs; one that another object began is looked up."""
        known = self._calls.get(call)
        if known is not None:
            return known
        stored = sa.select(sa.func.coalesce(sa.func.max(PIECES.c.number) + 1, 0)).where(PIECES.c.call == call)
        with self._reading() as connection:
            row = connection.execute(sa.select(CALLS).where(CALLS.c.id == call)).one_or_none()
            if row is None:
                raise MissingError(f"there is no call {call} in the log")
            if row.status != "running" and row.error != ended.LOST:
                raise UsageError(f"call {call} is over: {row.status}")
            nodes = [NewNode(node.kind, node.content or {}) for node in chain(connection, row.asked)]
            count = int(connection.execute(stored).scalar_one())
        name = full_name(row.client, row.model)
        opened = _Open(row.asked, new_words(nodes), name, Stream(self.redactor), count)
        return self._calls.setdefault(call, opened)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        if self.read_only:
            raise ReadOnlyError("the log was opened for reading only")
        if self._pid != os.getpid():
            self._enter()
            self.engine.dispose(close=False)  # its connections are the parent's
        # Threads take turns here: SQLite would let them wait longer than it takes.
        with self._lock, writing(self.engine) as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        if self._pid != os.getpid():
            self._enter()
            self.engine.dispose(close=False)
        with reading(self.engine) as connection:
            yield connection

    def _enter(self) -> None:
        """Begin as a process that has no row yet."""
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._process = None
        self._runs = set()


atexit.register(CallLog.close_all)
