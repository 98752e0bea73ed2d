"""Statements that are run so often that composing them anew would be most of their time.

Written once with `:name` for a value; each database gets its own spelling of that. Knows no tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

__all__ = ["Spelled"]

_VALUE = re.compile(r"(?<![:\w]):(\w+)")


class Spelled:
    """One statement."""

    def __init__(self, sql: str) -> None:
        """`sql` has no colon and no percent sign but those of its values."""
        self._sqlite = sql
        self._postgresql = _VALUE.sub(r"%(\1)s", sql)

    def run(
        self, connection: sa.Connection, values: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> sa.CursorResult[Any]:
        """Run it with values, or once for each of several."""
        sqlite = connection.dialect.name == "sqlite"
        return connection.exec_driver_sql(self._sqlite if sqlite else self._postgresql, values)
