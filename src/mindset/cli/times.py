"""Times as people type them: a day, a moment, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

__all__ = ["TIME"]

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Time(click.ParamType[str]):
    """A time, as ISO 8601 in UTC with microseconds."""

    name = "TIME"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As it is to be typed."""
        return "30d|DATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The moment that is meant; a day begins where the user is."""
        text = str(value)
        if ago := _AGO.fullmatch(text):
            try:
                when = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            except OverflowError:
                self.fail(f"{text!r} is before all calendars", param, ctx)
        else:
            try:
                when = datetime.fromisoformat(text).astimezone(UTC)
            except (ValueError, OverflowError):
                self.fail(
                    f"{text!r} is no time; give 30m, 12h, 7d, 2w, 2026-01-31 or 2026-01-31T12:00", param, ctx
                )
        return when.isoformat(timespec="microseconds")


TIME = Time()
