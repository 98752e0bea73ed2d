from __future__ import annotations

import pytest

from mindset.cli.chat import slash
from mindset.cli.chat.commands import Commands
from mindset.errors import UsageError


def test_every_command_can_be_carried_out() -> None:
    can = {name for name in vars(Commands) if not name.startswith("_")}
    assert can == slash.COMMANDS.keys() - {"exit"}


def test_a_text_is_no_command() -> None:
    assert slash.parse("What is /etc?") is None
    assert slash.parse(" /back") is None


def test_what_stands_behind_a_command_is_its_argument() -> None:
    command, argument = slash.parse("/switch  two words ") or (None, None)
    assert (command, argument) == (slash.COMMANDS["switch"], "two words")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/bakc", "did you mean /back"),
        ("/", "there is no /;"),
        ("/tree now", "takes nothing"),
        ("/switch", "write /switch NAME|HASH"),
    ],
)
def test_what_cannot_be_meant_is_refused(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("|", r"\|")):
        slash.parse(line)


def test_completion() -> None:
    assert list(slash.begun("/s")) == ["/switch", "/system", "/search", "/save"]
    assert list(slash.begun("say")) == []
