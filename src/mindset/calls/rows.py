"""Calls as rows: what is written when one begins, goes on and ends. Inside transactions of the callers'."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import sqlalchemy as sa

from mindset.calls.call import Asked, Outcome
from mindset.calls.canonical import Json, canonical
from mindset.calls.prices import Price
from mindset.calls.process import this_process
from mindset.calls.redact import Redactor
from mindset.calls.runs import Run
from mindset.calls.schema import now
from mindset.calls.traces import searched
from mindset.calls.tree import put
from mindset.calls.words import words_of
from mindset.database.spelled import Spelled

__all__ = ["add_pieces", "begin", "end", "enter_process", "enter_run"]


def _insert(table: str, *columns: str, more: str = "") -> Spelled:
    # Names are ours, from the code.
    values = ", ".join(f":{column}" for column in columns)
    return Spelled(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) {more}".strip())  # noqa: S608


_PROCESS = _insert("processes", "host", "boot", "pid", "began", "command", "entered", more="RETURNING id")
_RUN = _insert("runs", "id", "name", "began", "replays", "process", more="ON CONFLICT (id) DO NOTHING")
_BEGIN = _insert(
    "calls", "run", "process", "parent", "began", "status", "verb", "model", "client", "key", "asked", "options",
    more="RETURNING id",
)  # fmt: skip
_PIECES = _insert("pieces", "call", "number", "events")
_TEXTS = _insert(
    "texts", "id", "prompt", "answer",
    more="ON CONFLICT (id) DO UPDATE SET prompt = excluded.prompt, answer = excluded.answer",
)  # fmt: skip
_ENDED = (
    "status", "answered", "seconds", "first_token", "local_seconds", "prompt_tokens", "completion_tokens",
    "cached_tokens", "reasoning_tokens", "cost", "price", "finish_reason", "error", "retries", "answered_by",
    "content_hash", "replayed_from", "endpoint", "result",
)  # fmt: skip
_END = Spelled(
    f"UPDATE calls SET {', '.join(f'{column} = :{column}' for column in _ENDED)} WHERE id = :id"  # noqa: S608
)


def enter_process(connection: sa.Connection, redactor: Redactor) -> int:
    """A row for this process."""
    command = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []
    row = asdict(this_process()) | {"command": _json(redactor.json(command)), "entered": now()}
    return int(_PROCESS.run(connection, row).scalar_one())


def enter_run(connection: sa.Connection, run: Run, process: int) -> None:
    """A row for a run, if there is none yet."""
    row = {"id": run.id, "name": run.name, "began": run.began, "replays": run.replays, "process": process}
    _RUN.run(connection, row)


def begin(connection: sa.Connection, asked: Asked, run: str, process: int) -> tuple[int, str | None]:
    """A row for a call that runs, and the nodes of what it asks; returns its id and the last node's hash."""
    tip = put(connection, asked.nodes, None)
    row = {
        "run": run, "process": process, "parent": asked.parent, "began": now(), "status": "running",
        "verb": asked.verb, "model": _plain(asked.model), "client": asked.client, "key": asked.key, "asked": tip,
        "options": _json(dict(asked.options)),
    }  # fmt: skip
    return int(_BEGIN.run(connection, row).scalar_one()), tip


def add_pieces(connection: sa.Connection, call: int, number: int, packed: Sequence[bytes]) -> None:
    """Rows of pieces, the first one the `number`-th of its call."""
    numbered = enumerate(packed, number)
    _PIECES.run(connection, [{"call": call, "number": place, "events": row} for place, row in numbered])


def end(
    connection: sa.Connection, call: int, asked: str | None, prompt: str, outcome: Outcome, price: Price | None
) -> None:  # fmt: skip
    """What is known of a call at its end, the nodes of the answer, and the words to find it by.

    `price` None: nobody knows it.
    """
    row = {
        "id": call,
        "status": outcome.status,
        "answered": put(connection, outcome.answer, asked) if outcome.answer else None,
        "retries": _json([asdict(one) for one in outcome.retries]) if outcome.retries else None,
        "result": None if outcome.result is None else _json(outcome.result),
        "error": _plain(outcome.error),
        "answered_by": _plain(outcome.answered_by),
        "finish_reason": outcome.finish_reason,
        "content_hash": outcome.content_hash,
        "seconds": outcome.seconds,
        "first_token": outcome.first_token,
        "local_seconds": outcome.local_seconds,
        "replayed_from": outcome.replayed_from,
        "endpoint": _plain(outcome.endpoint),
        "cost": None if price is None else price.cost,
        "price": _json(price.told()) if price is not None and price.table else None,
        **asdict(outcome.usage),
    }
    _END.run(connection, row)
    words = {"id": call, "prompt": searched(prompt), "answer": searched(words_of(outcome.answer))}
    _TEXTS.run(connection, words)


def _json(value: Json) -> str:
    return canonical(value).decode()


def _plain(text: str | None) -> str | None:
    """PostgreSQL has no letter 0."""
    return None if text is None else text.replace("\x00", " ")
