"""Results on the terminal: one JSON document, or rich tables.

Does not know any command. Invariant: results go to stdout, everything else to stderr: a pipe gets results
only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

__all__ = ["bits", "print_figures", "print_json", "print_table", "say", "size"]


def print_json(document: object) -> None:
    """The whole result as JSON; paths as text, NaN as null."""
    click.echo(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Mapping[str, str], rows: Iterable[Iterable[object]]) -> None:
    """Rows under `columns`, each named with its alignment: left or right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in columns.items():
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=side == "right")
    for row in rows:
        table.add_row(*(_escape(cell) for cell in row))
    _console().print(table)


def print_figures(figures: Iterable[tuple[str, object]]) -> None:
    """Names and figures in two columns."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in figures:
        table.add_row(_escape(name), _escape(value))
    _console().print(table)


def say(text: str) -> None:
    """One line on stdout."""
    click.echo(text)


def bits(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where it was not measured."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"  # noqa: PLR0124 - NaN


def size(n_bytes: int) -> str:
    """Bytes as a person reads them."""
    return f"{n_bytes / 1e6:,.1f} MB"


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _escape(cell: object) -> str:
    """Text of the model may contain brackets, which rich would read as markup."""
    from rich.markup import escape

    return escape(str(cell))


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, str | int | bool) or value is None else str(value)
