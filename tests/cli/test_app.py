from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import mindset
from mindset.__main__ import HELP_PAGE
from mindset.cli.app import COMMANDS, app


def every_command(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


ALL = list(every_command(app))
IDS = [" ".join(path) for path, _ in ALL]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mindset", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_table_says_what_the_command_says(name: str) -> None:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name].short_help


@pytest.mark.parametrize(("path", "command"), ALL, ids=IDS)
def test_every_command_has_json_and_an_example(path: tuple[str, ...], command: click.Command) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    only_names_others = isinstance(command, click.Group) and not command.invoke_without_command
    assert "--json" in result.output or only_names_others
    assert re.search(rf"Example:\n +mindset {path[0]}\b", result.output)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_quick_help_page_is_what_click_prints(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    built = CliRunner().invoke(app, [flag], prog_name="mindset", terminal_width=80).output
    assert (
        run(flag).stdout == built == (Path(mindset.__file__).parent / HELP_PAGE).read_text(encoding="utf-8")
    )


def test_version() -> None:
    assert run("--version").stdout == f"mindset {mindset.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["convert"],
        ["convert", "tiny"],
        ["convert", "tiny", "--out", "x", "--k", "0"],
        ["convert", "tiny", "--out", "x", "--k", "some"],
        ["convert", "tiny", "--out", "x", "--bank", "cloud"],
        ["convert", "tiny", "--out", "x", "--layers", "1-"],
        ["convert", "tiny", "--out", "x", "--propose", "proxy"],
        ["convert", "tiny", "--out", "x", "--skip", "lowrank:0"],
        ["convert", "tiny", "--out", "x", "--slots", "-1"],
        ["convert", "tiny", "--out", "x", "--dtype", "int8"],
        ["distill", "tiny", "--out", "x", "--steps", "0"],
        ["distill", "tiny", "--out", "x", "--steps", "5", "--minutes", "1"],
        ["distill", "tiny", "--out", "x", "--train", "nothing"],
        ["eval"],
        ["eval", "x", "--text", "/no/such/file"],
        ["why", "x"],
        ["why", "x", "y", "--top", "0"],
        ["generate", "x", "y", "--temperature", "-1"],
        ["generate", "x", "y", "--max-tokens", "0"],
        ["export", "x", "--out", "y"],
        ["models", "get"],
        ["models", "nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_with_one_sentence_on_stderr(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(re.findall(r"^Error: \S.*", result.stderr, re.M)) == 1


def test_no_command_shows_the_help_and_exits_2() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "Commands:" in result.output
