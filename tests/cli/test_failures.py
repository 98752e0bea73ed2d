from __future__ import annotations

import errno

import click
import pytest
from click.testing import CliRunner, Result

from mindset.cli import failures
from mindset.errors import DiskFullError, MindsetError, UsageError, WeightsError


def failing_with(error: BaseException) -> Result:
    @click.command(cls=failures.Command)
    def command() -> None:
        raise error

    return CliRunner().invoke(command, [])


@pytest.mark.parametrize(
    "error",
    [
        MindsetError("no"),
        WeightsError("no"),
        DiskFullError("no"),
        FileExistsError(errno.EEXIST, "no"),
        OSError(1, "no"),
    ],
)
def test_a_failure_is_one_sentence_and_exits_1(error: BaseException) -> None:
    result = failing_with(error)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: no\n")


def test_the_system_names_the_file() -> None:
    result = failing_with(PermissionError(errno.EACCES, "Permission denied", "/some/file"))
    assert (result.exit_code, result.stderr) == (1, "Error: /some/file: Permission denied\n")


def test_wrong_usage_found_by_the_library_exits_2_and_names_the_command() -> None:
    result = failing_with(UsageError("k is 0"))
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: command")
    assert result.stderr.endswith("Error: k is 0\n")


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError("without a system's word")])
def test_a_defect_keeps_its_traceback(error: BaseException) -> None:
    assert failing_with(error).exception is error


def test_a_group_fails_alike() -> None:
    @click.group(cls=failures.Group)
    def group() -> None:
        """Group."""

    @group.command()
    def child() -> None:
        raise MindsetError("no")

    result = CliRunner().invoke(group, ["child"])
    assert (result.exit_code, result.stderr) == (1, "Error: no\n")


def test_an_interrupt_exits_1() -> None:
    result = failing_with(KeyboardInterrupt())
    assert (result.exit_code, result.stderr.strip()) == (1, "Aborted!")
