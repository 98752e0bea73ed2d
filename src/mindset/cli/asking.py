"""Options of the commands that ask a model: which one, how, and with which tools.

Checks syntax; what a model can do is for the client to say. Invariant: an option means the same in every command that
has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Any

import click

from mindset.calls.canonical import Json
from mindset.cli.options import ram_option
from mindset.errors import UsageError
from mindset.llm.request import Options

__all__ = ["Asking", "asking_options", "changed", "options_of"]

_NUMBERS: dict[str, type] = {"max_tokens": int, "top_k": int, "seed": int, "logprobs": int, "reads": int} | {
    "temperature": float,
    "top_p": float,
}
EXTRA = "extra."


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and how."""

    model: str | None
    """MODEL, or None where none was given."""
    system: str | None
    options: Options
    tools: tuple[str, ...]
    """As they were given."""
    stream: bool
    """Whether to print an answer while it comes."""
    ram: int | None = None
    """Bytes of a memory's slots that may be in RAM at a time; None: all of them."""


_OPTIONS = (
    click.option("-m", "--model", metavar="MODEL", help="Model to ask.  [smollm2, or model in config.toml]"),
    click.option("-s", "--system", metavar="TEXT", help="Instructions that stand above the dialog."),
    click.option(
        "-o",
        "--option",
        "pairs",
        nargs=2,
        multiple=True,
        metavar="KEY VALUE",
        help="temperature, top_p, top_k, max_tokens, seed, stop, logprobs, regex, reads, extra.NAME.",
    ),
    click.option(
        "-T",
        "--tool",
        "tools",
        multiple=True,
        metavar="TOOL",
        help="Functions that the model may call: FILE.py, FILE.py:NAME, MODULE:NAME.",
    ),
    click.option("--no-stream", is_flag=True, help="Print an answer when it is complete."),
)


def asking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-m -s -o -T --no-stream --ram`; the command receives them as one `asking`."""

    @wraps(command)
    def with_asking(
        *args: Any,
        model: str | None,
        system: str | None,
        pairs: tuple[tuple[str, str], ...],
        tools: tuple[str, ...],
        no_stream: bool,
        ram: int | None,
        **kwargs: Any,
    ) -> Any:
        asking = Asking(model, system, options_of(pairs), tools, not no_stream, ram)
        return command(*args, asking=asking, **kwargs)

    decorated: Callable[..., Any] = ram_option(with_asking)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def options_of(pairs: Iterable[tuple[str, str]]) -> Options:
    """The options that pairs of a key and a value mean; `stop` may come more than once."""
    given: dict[str, Any] = {}
    stops: list[str] = []
    extra: dict[str, Json] = {}
    known = {field.name for field in fields(Options)} - {"extra", "schema"}
    for key, value in pairs:
        name = key.replace("-", "_")
        if key.startswith(EXTRA):
            extra[key.removeprefix(EXTRA)] = _json(value)
        elif name not in known:
            raise UsageError(
                f"there is no option {key}; there are {', '.join(sorted(known))} and {EXTRA}NAME"
            )
        elif name == "stop":
            stops.append(value)
        else:
            given[name] = _number(name, value) if name in _NUMBERS else value
    return Options(**given, stop=tuple(stops), extra=extra)


def changed(options: Options, key: str, value: str | None) -> Options:
    """The options with one of them other than before, or (None) as if it had not been given."""
    name = key.partition(".")[0].replace("-", "_")
    given = Options() if value is None else options_of([(key, value)])
    if value is None:
        options_of([(key, "1")])  # refuses what there is not
    if key.startswith(EXTRA):
        rest = {one: told for one, told in options.extra.items() if one != key.removeprefix(EXTRA)}
        return replace(options, extra={**rest, **given.extra})
    return replace(options, **{name: getattr(given, name)})


def _number(name: str, value: str) -> float:
    kind = _NUMBERS[name]
    try:
        number: float = kind(value)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name} is {what}, not {value!r}") from None
    return number


def _json(value: str) -> Json:
    """A JSON value, or else the text itself."""
    try:
        return json.loads(value)
    except ValueError:
        return value
