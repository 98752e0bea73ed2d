"""Texts that are continued together: who is read next, who takes part in a pass, who joins whom.

A step reads a piece of the prompts that wait and gives every running text one token, so that a long prompt does not
hold up the others. Running texts share passes (a group) unless one is so much longer than the others that padding
would cost more than a pass of its own. Not thread-safe: one thread steps. Knows no queue and no clients.

Invariant: what a text says does not depend on who runs beside it, to rounding; alone, to the bit.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from mindset.errors import CallError, MindsetError
from mindset.llm.engine.columns import Columns, Kept
from mindset.llm.engine.grammar import Grammars
from mindset.llm.engine.passes import Alone, Passes
from mindset.llm.engine.prefixes import Prefixes
from mindset.llm.engine.reads import Reads, Watch
from mindset.llm.engine.row import Row

__all__ = ["Batch", "BatchSettings"]

READERS = 4
"""Long prompts that are read by turns."""
SHARE_TO_FILL = 0.75
"""Share of the caches' RAM up to which texts are let in: those that run grow."""


@dataclass(frozen=True)
class BatchSettings:
    """How much at once."""

    rows: int = 16
    """Texts that run at once; more wait."""
    piece: int = 64
    """Tokens of prompts that are read between two steps of those that run."""
    lone_piece: int = 512
    """The same where none runs."""
    prefix_bytes: int = 256 << 20
    """RAM for the caches of texts that are over; 0: none is kept."""
    cache_bytes: int = 4 << 30
    """RAM for the caches of texts under way; where it is short the latest texts wait. One text may have more."""


@dataclass(eq=False)
class _Group:
    """Texts in one cache."""

    columns: Columns | Alone
    rows: list[Row]
    unread: list[list[int]] = field(default_factory=list)
    """Of each row's prompt, what is still to be read; none where all run."""


class Batch:
    """All texts of one model that are under way."""

    def __init__(
        self,
        model: PreTrainedModel,
        grammars: Grammars,
        settings: BatchSettings | None = None,
        reads: Reads | None = None,
    ) -> None:
        self.settings = settings or BatchSettings()
        self._passes, self._grammars = Passes(model), grammars
        self._reads = Reads(model) if reads is None else reads
        self.prefixes = Prefixes(self.settings.prefix_bytes if self._passes.shares else 0)
        self._limit = self.settings.rows if self._passes.shares else 1
        self.waiting: deque[Row] = deque()
        self._reading: list[_Group] = []
        """Whose prompts are being read, the next one first."""
        self._groups: list[_Group] = []
        """Who runs."""
        self._turns = itertools.count()
        self._column_bytes = 0
        """Of one token of one text; 0 until one was read."""

    @property
    def running(self) -> int:
        """Texts that are being read or continued."""
        return sum(len(group.rows) for group in [*self._reading, *self._groups])

    @property
    def cache_nbytes(self) -> int:
        """RAM that the caches of texts under way take."""
        return sum(group.columns.nbytes for group in [*self._reading, *self._groups])

    def close(self) -> None:
        """Leave the model as it was."""
        self._passes.close()
        self.prefixes.clear()

    def add(self, row: Row) -> None:
        """Let a text wait for its turn."""
        self.waiting.append(row)

    def step(self) -> bool:
        """One token for every text that runs, and a piece of what waits; whether there is more to do."""
        self._let_go()
        self._make_room()
        if (group := self._next_to_read()) is not None:
            self._reading.append(group)
        if self._reading:
            group = self._reading.pop(0)
            self._guarded(group, self._read_piece)
        for group in list(self._groups):
            self._guarded(group, self._continue)
        self._groups = [group for group in self._groups if group.rows]
        return bool(self.waiting or self.running)

    def fail(self, error: Exception) -> None:
        """End all texts by an error."""
        for row in [*self.waiting, *(row for group in [*self._reading, *self._groups] for row in group.rows)]:
            row.fail(error)
        self.waiting.clear()
        self._reading, self._groups = [], []

    # ---- who leaves ---------------------------------------------------------------------------------------------
    def _let_go(self) -> None:
        """Texts that nobody wants any more."""
        for row in [row for row in self.waiting if row.job.ticket.cancelled]:
            row.finish("cancelled")
        self.waiting = deque(row for row in self.waiting if not row.over)
        for group in [*self._groups, *self._reading]:
            for row in group.rows:
                if row.job.ticket.cancelled:
                    row.finish("cancelled")
            self._drop_over(group)
        self._reading = [group for group in self._reading if group.rows]
        self._groups = [group for group in self._groups if group.rows]

    def _make_room(self) -> None:
        """Let the latest texts wait again, to be read anew, while caches take more than they may."""
        while self.cache_nbytes > self.settings.cache_bytes and self.running > 1:
            groups = [*self._reading, *self._groups]
            group = max(groups, key=lambda group: max(row.turn for row in group.rows))
            place = max(range(len(group.rows)), key=lambda place: group.rows[place].turn)
            self.waiting.appendleft(group.rows[place])
            self._take_out(group, place)
            group.columns.shrink()
            self._reading = [group for group in self._reading if group.rows]
            self._groups = [group for group in self._groups if group.rows]

    def _take_out(self, group: _Group, place: int) -> None:
        group.columns.drop(place)
        _fill_gap(group.rows, place)
        _fill_gap(group.unread, place)

    def _drop_over(self, group: _Group) -> None:
        left = False
        for place in reversed(range(len(group.rows))):
            row = group.rows[place]
            if row.over:
                self._keep(group, place)
                self._take_out(group, place)
                left = True
        if left and group.rows and not group.unread:
            self._merge(group)

    def _keep(self, group: _Group, place: int) -> None:
        row = group.rows[place]
        if self.prefixes.limit and group.columns.width and not group.unread and not row.failed:
            kept = group.columns.take(place, row.ids)
            if kept is not None:
                self.prefixes.keep(kept)

    def _guarded(self, group: _Group, work: Callable[[_Group], None]) -> None:
        """Let a pass that fails take its own texts with it, and no others."""
        try:
            work(group)
        except Exception as error:  # a server outlives what one pass runs into
            for row in group.rows:
                row.fail(_as_ours(error))
            group.rows, group.unread = [], []

    # ---- reading prompts ----------------------------------------------------------------------------------------
    def _next_to_read(self) -> _Group | None:
        """The prompts that are read next, together where that costs little padding.

        Not before the others are read, unless those are long: a short prompt is not to wait for a book.
        """
        if not self.waiting or self.running >= self._limit or len(self._reading) >= READERS:
            return None
        if any(len(group.unread[0]) <= self._piece() for group in self._reading):
            return None
        if self.running and not self._fits(len(self.waiting[0].ids)):
            return None
        first = self._admitted()
        known = self.prefixes.find(first.ids)
        if known is not None:
            return self._resumed(first, known)
        rows = [first]
        if self._passes.shares and not self._passes.follows_marks:
            rows += self._alike(len(first.ids), self._limit - self.running - 1)
        columns = self._passes.columns([len(row.ids) for row in rows])
        return _Group(columns, rows, [list(row.ids) for row in rows])

    def _resumed(self, row: Row, known: Kept) -> _Group:
        columns = self._passes.columns(())
        columns.put(known)
        if not row.said:
            row.cached = len(known.ids)
        return _Group(columns, [row], [row.ids[len(known.ids) :]])

    def _admitted(self) -> Row:
        """The first that waits, whose turn it is now; who waits again keeps it."""
        row = self.waiting.popleft()
        row.turn = next(self._turns) if row.turn < 0 else row.turn
        return row

    def _fits(self, tokens: int) -> bool:
        """Whether there is RAM for a text of so many tokens."""
        self._column_bytes = max(
            [self._column_bytes, *(group.columns.column_bytes for group in [*self._reading, *self._groups])]
        )
        more = tokens * self._column_bytes
        return self.cache_nbytes + more <= SHARE_TO_FILL * self.settings.cache_bytes

    def _alike(self, length: int, room: int) -> list[Row]:
        """More that wait, none of them more than twice as long as another, as many as a piece holds."""
        piece, rows = self._piece(), list[Row]()
        low = high = length
        while self.waiting and len(rows) < room:
            own = len(self.waiting[0].ids)
            low, high = min(low, own), max(high, own)
            if high > 2 * low or high * (len(rows) + 2) > piece:
                break
            if self.prefixes.find(self.waiting[0].ids) is not None or not self._fits(high * (len(rows) + 2)):
                break
            rows.append(self._admitted())
        return rows

    def _piece(self) -> int:
        return self.settings.piece if self._groups else self.settings.lone_piece

    def _read_piece(self, group: _Group) -> None:
        count = self._piece() if len(group.rows) == 1 else max(map(len, group.unread))
        pieces = [unread[:count] for unread in group.unread]
        group.unread = [unread[count:] for unread in group.unread]
        if any(group.unread):
            self._timed(group, lambda: self._passes.run(group.columns, pieces))
            self._reading.append(group)
            return
        group.unread = []
        self._groups.append(group)
        self._speak(group, pieces)
        self._drop_over(group)
        self._place(group)

    def _place(self, group: _Group) -> None:
        """Let texts whose prompts are read run with others."""
        self._groups.remove(group)
        if group.rows:
            self._groups.append(group)
            self._merge(group)

    def _merge(self, group: _Group) -> None:
        """Let a group run in another one, where padding costs less than a pass of its own."""
        columns = group.columns
        for other in self._groups:
            if other is group or isinstance(columns, Alone) or isinstance(other.columns, Alone):
                continue
            width = max(other.columns.width, columns.width)
            padding = len(other.rows) * (width - other.columns.width) + len(group.rows) * (
                width - columns.width
            )
            if padding * columns.column_bytes > self._passes.bytes / 2:
                continue
            for place, row in enumerate(group.rows):
                other.columns.put(columns.take(place, row.ids))
            other.rows += group.rows
            group.rows = []
            self._groups.remove(group)
            return

    # ---- continuing ---------------------------------------------------------------------------------------------
    def _continue(self, group: _Group) -> None:
        self._speak(group, [row.ids[-1:] for row in group.rows])
        self._drop_over(group)

    def _speak(self, group: _Group, new: Sequence[Sequence[int]]) -> None:
        """Read new tokens and let every row draw the next one."""
        longest = max(map(len, new))
        places = {row: (n + 1) * longest - 1 for n, row in enumerate(group.rows) if row.reads and self._reads}
        count = max((row.reads for row in places), default=0)
        with self._reads.watching(list(places.values()), count) as watch:
            logits = self._timed(group, lambda: self._passes.run(group.columns, new))
        self._draw(group.rows, logits, watch, places)

    def _draw(
        self, rows: list[Row], logits: Float[Tensor, "rows vocab"], watch: Watch, places: dict[Row, int]
    ) -> None:
        guided = [row for row in rows if row.job.guide is not None]
        masks = self._grammars.allowed([row.job.guide for row in guided if row.job.guide]) if guided else []
        allowed = dict(zip(guided, masks, strict=True))
        for row, own in zip(rows, logits, strict=True):
            try:
                reads = watch.most(places[row], row.reads) if row in places else ()
                row.take(own, allowed.get(row), reads)
            except Exception as error:  # one text's trouble is not the others'
                row.fail(_as_ours(error))

    def _timed(
        self, group: _Group, work: Callable[[], Float[Tensor, "rows vocab"]]
    ) -> Float[Tensor, "rows vocab"]:
        began = time.perf_counter()
        logits = work()
        share = (time.perf_counter() - began) / len(group.rows)
        for row in group.rows:
            row.job.ticket.seconds += share
        return logits


def _as_ours(error: Exception) -> MindsetError:
    """An error as callers are told of it."""
    return error if isinstance(error, MindsetError) else CallError(f"the model failed: {error}")


def _fill_gap(rows: list[Any], place: int) -> None:
    """Let the last one take a place, as columns do; nothing happens to an empty list."""
    if rows:
        rows[place] = rows[-1]
        rows.pop()
