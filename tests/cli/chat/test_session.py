from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from mindset.calls.log import CallLog
from mindset.cli.asking import Asking
from mindset.cli.chat.screen import Screen
from mindset.cli.chat.session import Session
from mindset.cli.conversation import Conversation
from mindset.cli.edge import Edge
from mindset.llm.capabilities import Capabilities
from mindset.llm.dialog import Dialog
from mindset.llm.events import Alternative, Finished, Read, ReasoningPiece, Started, TextPiece, Token
from mindset.llm.request import Options, Request
from mindset.llm.scripted import ScriptedClient


class Typed:
    """A person who types these lines."""

    prompts = True

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        self.drafts: list[str] = []

    def read(self, default: str = "") -> str:
        self.drafts.append(default)
        return self.ask("")

    def ask(self, question: str) -> str:
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)

    def unseen(self) -> AbstractContextManager[None]:
        return nullcontext()


class Insightful(ScriptedClient):
    """A small model that tells how sure it is, thinks aloud, and has little room."""

    @property
    def context(self) -> int:
        return 120

    async def _stream(self, request: Request) -> Any:
        yield Started("small")
        yield ReasoningPiece("Hmm. ")
        instead = (Alternative("No", -1.0), Alternative("Yes", -0.5))
        yield TextPiece("Yes", (Token("Yes", -0.5, 1, instead, (Read(2, 7, 0.5), Read(3, 8, 0.25, "tour"))),))
        yield TextPiece(".\x1b[2J")
        yield Finished("stop")


@pytest.fixture
def log() -> Iterator[CallLog]:
    opened = CallLog.open()
    yield opened
    opened.close()


def talk(log: CallLog, *lines: str) -> tuple[Session, Typed]:
    person = Typed(lines)
    client = Insightful([], log=log, capabilities=Capabilities(chat=True, logprobs=True, reads=True))
    asking = Asking("small", None, Options(), (), stream=True)
    with Edge() as edge:
        held = Conversation(log, edge, asking, insight=False, ask_first=False, silent=True)
        held.dialog = Dialog(log, client)
        session = Session(edge, held, person, Screen(plain=True, person=True))
        session.run()
    return session, person


def test_why_tells_what_could_have_come_and_who_spoke(
    log: CallLog, capsys: pytest.CaptureFixture[str]
) -> None:
    session, _ = talk(log, "/why", "sure?", "/why", "/why yes", "/why 3")
    printed = capsys.readouterr().out
    assert "Error: the last answer came without probabilities" in printed
    assert "1  'Yes'          61%  'No' 37%" in printed
    assert "'Yes'  layer 2, slot 7 (the model's own), influence 0.5" in printed
    assert "'Yes'  layer 3, slot 8 (overlay tour), influence 0.25" in printed
    assert "3 is none of them" in printed
    assert session.failed == 2


def test_a_model_thinks_aloud_and_cannot_steer(log: CallLog, capsys: pytest.CaptureFixture[str]) -> None:
    talk(log, "well?")
    printed = capsys.readouterr().out
    assert "Hmm. Yes.\N{REPLACEMENT CHARACTER}[2J\n" in printed
    assert "\x1b" not in printed


def test_what_no_longer_fits_is_told_once(log: CallLog, capsys: pytest.CaptureFixture[str]) -> None:
    talk(log, *(f"{number} {'x' * 80}" for number in range(6)))
    printed = capsys.readouterr().out
    assert printed.count("were not sent; they stay in /tree") == 1


def test_edit_offers_the_question_again(log: CallLog) -> None:
    session, person = talk(log, "first", "second", "/edit 2", "other", "/edit")
    assert person.drafts == ["", "", "", "first", "", "other"]
    assert [branch.name for branch in session.dialog.branches()] == ["main", "2"]


def test_completion(log: CallLog) -> None:
    session, _ = talk(log, "hello", "/fork side")
    assert list(session.complete("/sw")) == ["/switch"]
    assert list(session.complete("/switch ")) == ["main", "side"]
    assert list(session.complete("hello /s")) == []


def test_help_lists_every_command(log: CallLog, capsys: pytest.CaptureFixture[str]) -> None:
    talk(log, "/help")
    printed = capsys.readouterr().out
    assert "/switch NAME|HASH" in printed
    assert "/why [word|n]" in printed


def test_instructions_and_usage(log: CallLog, capsys: pytest.CaptureFixture[str]) -> None:
    talk(
        log,
        "/system",
        "/system Be brief.",
        "hello",
        "/system none",
        "/usage",
        "/model",
        "/tools",
        "/branches",
    )
    printed = capsys.readouterr().out
    assert "no instructions\nBe brief.\n" in printed
    assert "script" in printed
    assert "no tools; mindset chat -T gives some" in printed


def test_exit_leaves(log: CallLog) -> None:
    session, person = talk(log, "/exit", "never said")
    assert person.lines == ["never said"]
    assert session.dialog.branch is None


def test_options_are_set_and_taken_back(log: CallLog, capsys: pytest.CaptureFixture[str]) -> None:
    session, _ = talk(
        log,
        "/option",
        "/option temperature 0.8",
        "/option stop x",
        "/option extra.n 1",
        "/option extra.n none",
    )
    assert capsys.readouterr().out.splitlines() == [
        "[script; /help lists the commands, Ctrl-D leaves]",
        "no options",
        "temperature 0.8",
        "temperature 0.8, stop ['x']",
        "temperature 0.8, stop ['x'], extra {'n': 1}",
        "temperature 0.8, stop ['x']",
    ]
    session, _ = talk(
        log, "/option heat 1", "/option heat none", "/option temperature", "/option temperature -1"
    )
    assert session.failed == 4


def test_the_same_answer_again_is_told(log: CallLog, capsys: pytest.CaptureFixture[str]) -> None:
    session, _ = talk(log, "well?", "/retry")
    assert "the same answer as before" in capsys.readouterr().out
    assert [branch.name for branch in session.dialog.branches()] == ["main"]
