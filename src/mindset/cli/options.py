"""Options that several commands share, and the small grammars of their values.

Checks syntax only: whether a k fits the bank or a layer exists is for the library to say. Invariant: an
option means the same in every command that has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, get_args

import click

from mindset.errors import UsageError
from mindset.graft.runtime import Dtype, Runtime

__all__ = [
    "FILE",
    "LAYERS",
    "PROPOSE",
    "SKIP",
    "K",
    "count_option",
    "json_option",
    "memory_place",
    "model_folder",
    "out_option",
    "ram_option",
    "runtime_options",
]


class Grammar(click.ParamType[str]):
    """Text that has to match a pattern."""

    def __init__(self, name: str, pattern: str, example: str) -> None:
        self.name = name
        self.pattern = re.compile(pattern)
        self.example = example

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """The form as it is to be typed; click would shout it."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself, if it matches."""
        text = str(value)
        if not self.pattern.fullmatch(text):
            self.fail(f"{text!r} is not of the form {self.name}, for example {self.example}", param, ctx)
        return text


class SlotCount(click.ParamType[int | None]):
    """A positive number, or `all`, which is None."""

    name = "N|all"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As it is to be typed."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """None for all."""
        if value is None or value == "all":
            return None
        text = str(value)
        if not text.isdecimal() or int(text) < 1:
            self.fail(f"{text!r} is neither a number of slots, 1 or more, nor 'all'", param, ctx)
        return int(text)


class Size(click.ParamType[int]):
    """Bytes, as people write them: 500MB, 2GB, 1.5GiB."""

    name = "SIZE"
    units: ClassVar[dict[str, int]] = {
        "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
    }  # fmt: skip

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As it is to be typed."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """In bytes, one at least."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value).lower())
        if (
            found is None
            or found[2] not in self.units
            or not (size := int(float(found[1]) * self.units[found[2]]))
        ):
            self.fail(f"{value!r} is no size; give one such as 500MB, 2GB or 1.5GiB", param, ctx)
        return size


K = SlotCount()
PROPOSE = Grammar("all|score|proxy:R", r"all|score|proxy:[1-9]\d*", "proxy:96")
SKIP = Grammar("none|affine|lowrank:R", r"none|affine|lowrank:[1-9]\d*", "lowrank:16")
LAYERS = Grammar("all|LIST", r"all|\d+(-\d+)?(,\d+(-\d+)?)*", "0,3,5-9")
FOLDER = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, exists=True)


RUNTIME = (
    click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps.  [cpu]"),
    click.option(
        "--dtype",
        type=click.Choice(get_args(Dtype)),
        metavar="NAME",
        help=f"{', '.join(get_args(Dtype))}",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="CPU threads; 0 leaves it to torch.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Names all randomness.  [0]"
    ),
)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def count_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--count`, and with what lambda."""

    @wraps(command)
    def with_count(*args: Any, count: bool, decay: float | None, **kwargs: Any) -> Any:
        if decay is not None and not count:
            raise UsageError("--decay says how reads are counted; give --count too")
        return command(*args, count=count, decay=decay, **kwargs)

    decorated: Callable[..., Any] = click.option(
        "--decay",
        type=click.FloatRange(0, 1),
        metavar="X",
        help="With --count: lambda of LRFU, 0 (LFU) to 1 (LRU).  [the memory's, or 0.0001]",
    )(with_count)
    return click.option("--count", is_flag=True, help="Count which slots are read, in the folder.")(decorated)


def ram_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--ram`."""
    return click.option(
        "--ram", type=Size(), metavar="SIZE", help="RAM for a memory's slots.  [all of them]"
    )(command)


def out_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--out`."""
    return click.option("--out", required=True, type=FOLDER, metavar="DIR", help="Folder to write.")(command)


class MemoryPlace(click.ParamType[Path | str]):
    """A folder, or a daemon's URL, which is no path."""

    name = "DIR|URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """A URL stays text."""
        from mindset.store.daemon.address import is_url

        return str(value) if is_url(str(value)) else Path(value)


def memory_place(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument of commands that work on a memory, beside us or at a daemon's URL."""
    return click.argument("place", metavar="DIR|URL", type=MemoryPlace())(command)


def model_folder(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument of commands that read a folder made by `convert` or `distill`.

    That it is one is for the library to say: a wrong MODEL fails alike in every command.
    """
    return click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))(command)


def runtime_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--device --dtype --threads --seed`; the command receives them as one `runtime`."""

    @wraps(command)
    def with_runtime(
        *args: Any, device: str, dtype: Dtype | None, threads: int, seed: int, **kwargs: Any
    ) -> Any:
        return command(*args, runtime=Runtime(device, dtype, threads, seed), **kwargs)

    decorated: Callable[..., Any] = with_runtime
    for option in reversed(RUNTIME):
        decorated = option(decorated)
    return decorated
