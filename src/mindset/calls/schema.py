"""The tables of the log: processes, runs, calls, their pieces and texts, and the nodes of the dialog tree.

A call is a row from the moment it is made: `running` with the process that makes it, and at its end how it ended.
`asked` and `answered` are the hashes of nodes: the last one of the dialog that was asked, the last one of the answer,
which hangs below it. `pieces` hold the answer as it came, `texts` the words that a search looks through. A node whose
content was deleted keeps its hash and its parent, and a seal over both.

Times are ISO 8601 in UTC with microseconds; contents, options, results, retries and prices are JSON text.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from mindset.database.fulltext import FullText
from mindset.database.migrations import Migration, Schema

__all__ = ["CALLS", "NODES", "PIECES", "PROCESSES", "RUNS", "SCHEMA", "TEXTS", "TEXT_INDEX", "now"]

TEXT_INDEX = FullText("texts", ("prompt", "answer"))

_TABLES = """
CREATE TABLE processes (
  id {serial}, host TEXT NOT NULL, boot TEXT NOT NULL, pid {int} NOT NULL, began TEXT NOT NULL, command TEXT NOT NULL,
  entered TEXT NOT NULL
);

CREATE TABLE runs (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, began TEXT NOT NULL, replays TEXT,
  process {int} NOT NULL REFERENCES processes (id)
);

CREATE INDEX runs_name ON runs (name, began);

CREATE TABLE nodes (
  hash TEXT PRIMARY KEY, kind TEXT NOT NULL, content TEXT, parent TEXT REFERENCES nodes (hash), created TEXT NOT NULL,
  deleted TEXT, seal TEXT
);

CREATE INDEX nodes_parent ON nodes (parent);
CREATE INDEX nodes_deleted ON nodes (deleted) WHERE deleted IS NOT NULL;

CREATE TABLE calls (
  id {serial}, run TEXT NOT NULL REFERENCES runs (id), process {int} NOT NULL REFERENCES processes (id),
  parent {int} REFERENCES calls (id) ON DELETE SET NULL, began TEXT NOT NULL, status TEXT NOT NULL,
  verb TEXT NOT NULL, model TEXT NOT NULL, client TEXT NOT NULL, key TEXT NOT NULL,
  asked TEXT REFERENCES nodes (hash), answered TEXT REFERENCES nodes (hash), options TEXT NOT NULL,
  seconds {real}, first_token {real}, local_seconds {real},
  prompt_tokens {int}, completion_tokens {int}, cached_tokens {int}, reasoning_tokens {int},
  cost {real}, price TEXT, finish_reason TEXT, error TEXT, retries TEXT, answered_by TEXT, content_hash TEXT,
  replayed_from {int}, endpoint TEXT, result TEXT
);

CREATE INDEX calls_key ON calls (run, key);
CREATE INDEX calls_model ON calls (model, id);
CREATE INDEX calls_parent ON calls (parent) WHERE parent IS NOT NULL;
CREATE INDEX calls_asked ON calls (asked);
CREATE INDEX calls_answered ON calls (answered);
CREATE INDEX calls_not_ok ON calls (status, id) WHERE status <> 'ok';

CREATE TABLE pieces (
  call {int} NOT NULL REFERENCES calls (id) ON DELETE CASCADE, number {int} NOT NULL, events {bytes} NOT NULL,
  PRIMARY KEY (call, number)
);

CREATE TABLE texts (id {id} REFERENCES calls (id) ON DELETE CASCADE, prompt TEXT NOT NULL, answer TEXT NOT NULL)
"""

SCHEMA = Schema(
    "calls",
    (
        Migration(
            1,
            "runs, calls, the dialog tree",
            tuple(statement for part in _TABLES.split(";") if (statement := part.strip())),
            sqlite=TEXT_INDEX.statements("sqlite"),
            postgresql=TEXT_INDEX.statements("postgresql"),
        ),
    ),
)


def now() -> str:
    """This moment, as the tables have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(column) for column in columns))


PROCESSES = _table("processes", "id", "host", "boot", "pid", "began", "command", "entered")
RUNS = _table("runs", "id", "name", "began", "replays", "process")
NODES = _table("nodes", "hash", "kind", "content", "parent", "created", "deleted", "seal")
CALLS = _table(
    "calls", "id", "run", "process", "parent", "began", "status", "verb", "model", "client", "key", "asked",
    "answered", "options", "seconds", "first_token", "local_seconds", "prompt_tokens", "completion_tokens",
    "cached_tokens", "reasoning_tokens", "cost", "price", "finish_reason", "error", "retries", "answered_by",
    "content_hash", "replayed_from", "endpoint", "result",
)  # fmt: skip
PIECES = _table("pieces", "call", "number", "events")
TEXTS = _table("texts", "id", "prompt", "answer")
