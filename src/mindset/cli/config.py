"""`mindset config`: where everything is kept, which keys are set, and keeping one. A key itself is never shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from mindset.cli import failures, options, render

__all__ = ["config"]

VARIABLES = (
    "MINDSET_HOME", "MINDSET_CALLS", "MINDSET_REPLAY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
)  # fmt: skip


@click.group(
    cls=failures.Group, invoke_without_command=True, short_help="Show where everything is, and keep keys."
)
@options.json_option
@click.pass_context
def config(ctx: click.Context, as_json: bool) -> None:
    """Show where everything is kept, and which keys are set; a key itself is never shown.

    \b
    Example:
      mindset config
      mindset config set-key openai < key.txt
    """
    if ctx.invoked_subcommand is None:
        _print(_state(), as_json)


@config.command("set-key")
@click.argument("name", metavar="NAME")
@click.option("--remove", is_flag=True, help="Take the key out instead.")
@options.json_option
def set_key(name: str, remove: bool, as_json: bool) -> None:
    """Keep the key that stands on standard input, for you alone to read.

    NAME is openai, anthropic, or the host of an address. A variable such as OPENAI_API_KEY comes before it.

    \b
    Example:
      mindset config set-key openai < key.txt
    """
    from mindset.llm.keys import keys_file, store_key

    store_key(name, None if remove else _read_key())
    if as_json:
        render.print_json({"name": name, "set": not remove, "path": keys_file()})
    else:
        render.say(f"the key of {name} is {'gone from' if remove else 'in'} {keys_file()}")


def _read_key() -> str:
    """From a pipe; at a terminal, typed unseen."""
    if sys.stdin.isatty():
        return str(click.prompt("Key", hide_input=True, err=True)).strip()
    return sys.stdin.read().strip()


def _state() -> dict[str, Any]:
    from mindset import places
    from mindset.calls.place import file_of, log_url
    from mindset.llm.keys import keys_file, stored_names

    url = log_url()
    return {
        "home": places.home(),
        "models": places.models_dir(),
        "settings": places.home() / "config.toml",
        "calls": file_of(url) or url.render_as_string(),
        "keys": keys_file(),
        "keys_set": stored_names(),
        "variables": {name: _shown(name) for name in VARIABLES if os.environ.get(name)},
    }


def _shown(variable: str) -> str:
    if variable.endswith("_KEY"):
        return "set"
    return _without_password(os.environ[variable])


def _without_password(value: str) -> str:
    import sqlalchemy as sa

    try:
        return sa.make_url(value).render_as_string() if "://" in value and "@" in value else value
    except sa.exc.ArgumentError:
        return value


def _print(state: dict[str, Any], as_json: bool) -> None:
    if as_json:
        render.print_json(state)
        return
    for name in ("home", "models", "settings", "calls", "keys"):
        place = state[name]
        absent = isinstance(place, Path) and not place.exists()
        render.say(f"{name:<10}{place}{'  (not there yet)' if absent else ''}")
    for name in state["keys_set"]:
        render.say(f"{'':<10}a key for {name} is set")
    for name, value in state["variables"].items():
        render.say(f"{name}={value}" if value != "set" else f"{name} is set")
