"""The tables of a memory: shards, slots, sources, edits; the same on SQLite and PostgreSQL.

A slot is what people name, by an id that is never used again. It has versions: an edit makes a new one and the old one
dies, a deletion only lets it die. A version is alive if the edit that made it holds and none that ended it does; so
undoing an edit is turning one row of `edits`, and `alive` follows. A version names the row of its shard where its
vectors lie; a row is free again once no version names it, which is when the edit that ended it is forgotten.

Times are ISO 8601 in UTC, tags and fields are JSON text, `start` and `stop` are characters of the source's text.
"""

from __future__ import annotations

import sqlalchemy as sa

from mindset.database.fulltext import FullText
from mindset.database.migrations import Migration, Schema

__all__ = ["EDITS", "FREE_ROWS", "META", "SCHEMA", "SHARDS", "SLOTS", "SLOT_TEXT", "SOURCES", "SOURCE_TEXT"]

_OF_VERSIONS = FullText("slots", ("label", "tags"), key="version")
"""As it was before step 3."""
SLOT_TEXT = FullText(
    "slots", ("label", "tags"), "slot",
    only="{row}alive = 1 AND ({row}label <> '' OR {row}tags <> '[]')", only_by=("alive",),
)  # fmt: skip
SOURCE_TEXT = FullText("sources", ("name", "text"))

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value {int} NOT NULL);

INSERT INTO meta VALUES ('next_slot', 1), ('next_version', 1), ('generation', 0);

CREATE TABLE shards (
  id {id}, layer {int} NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, heads {int} NOT NULL, rule TEXT NOT NULL,
  gated {int} NOT NULL, fields TEXT NOT NULL, sealed {int} NOT NULL, top {int} NOT NULL, mounted {int} NOT NULL,
  UNIQUE (layer, name)
);

CREATE TABLE sources (
  id {id}, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, text TEXT NOT NULL, created TEXT NOT NULL
);

CREATE TABLE edits (
  id {id}, kind TEXT NOT NULL, created TEXT NOT NULL, holds {int} NOT NULL, generation {int} NOT NULL
);

CREATE TABLE slots (
  version {id}, slot {int} NOT NULL, shard {int} NOT NULL REFERENCES shards (id), head {int} NOT NULL,
  row {int} NOT NULL, alive {int} NOT NULL, born {int} NOT NULL REFERENCES edits (id),
  died {int} REFERENCES edits (id), crc {int} NOT NULL, source {int} REFERENCES sources (id), start {int},
  stop {int}, created TEXT NOT NULL, label TEXT NOT NULL, tags TEXT NOT NULL, pinned {int} NOT NULL,
  weight {real} NOT NULL
);

CREATE UNIQUE INDEX slots_alive ON slots (slot) WHERE alive = 1;
CREATE INDEX slots_place ON slots (shard, row);
CREATE INDEX slots_born ON slots (born);
CREATE INDEX slots_died ON slots (died) WHERE died IS NOT NULL;
CREATE INDEX slots_source ON slots (source) WHERE source IS NOT NULL;

CREATE TABLE free_rows (shard {int} NOT NULL REFERENCES shards (id), row {int} NOT NULL, PRIMARY KEY (shard, row));
"""

SCHEMA = Schema(
    "store",
    (
        Migration(
            1,
            "shards, slots, sources, edits",
            tuple(statement for part in _TABLES.split(";") if (statement := part.strip())),
            sqlite=(*_OF_VERSIONS.statements("sqlite"), *SOURCE_TEXT.statements("sqlite")),
            postgresql=(*_OF_VERSIONS.statements("postgresql"), *SOURCE_TEXT.statements("postgresql")),
        ),
        Migration(
            2,
            "pages of a million slots",
            (
                "CREATE INDEX slots_page ON slots (shard, slot) WHERE alive = 1",
                "CREATE INDEX slots_pinned ON slots (slot) WHERE alive = 1 AND pinned = 1",
                "CREATE INDEX slots_suppressed ON slots (slot) WHERE alive = 1 AND weight = 0",
            ),
        ),
        Migration(
            3,
            "full text in the order of slots",
            ("CREATE INDEX slots_cited ON slots (source, slot) WHERE alive = 1 AND source IS NOT NULL",),
            sqlite=(
                "DROP TRIGGER slots_text_insert",
                "DROP TRIGGER slots_text_delete",
                "DROP TRIGGER slots_text_update",
                "DROP TABLE slots_text",
                *SLOT_TEXT.statements("sqlite"),
            ),
        ),
        # Every new slot was asked whether it has words; `put_versions` asks once for all.
        Migration(4, "full text of new slots at once", (), sqlite=("DROP TRIGGER slots_text_insert",)),
    ),
    remedy="`mindset memory migrate DIR` brings it there and changes nothing else",
)


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(column) for column in columns))


META = _table("meta", "name", "value")
SHARDS = _table(
    "shards", "id", "layer", "name", "kind", "heads", "rule", "gated", "fields", "sealed", "top", "mounted"
)
SOURCES = _table("sources", "id", "digest", "name", "text", "created")
EDITS = _table("edits", "id", "kind", "created", "holds", "generation")
SLOTS = _table(
    "slots", "version", "slot", "shard", "head", "row", "alive", "born", "died", "crc", "source", "start", "stop",
    "created", "label", "tags", "pinned", "weight",
)  # fmt: skip
FREE_ROWS = _table("free_rows", "shard", "row")
