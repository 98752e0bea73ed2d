"""A conversation with models that are computed here."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from llm.local_models import student, teacher

from mindset import places
from mindset.calls.log import CallLog
from mindset.calls.threads import Threads
from mindset.cli.asking import Asking
from mindset.cli.chat.reading import Lines
from mindset.cli.chat.screen import Screen
from mindset.cli.chat.session import Session
from mindset.cli.conversation import conversation
from mindset.cli.edge import Edge
from mindset.errors import MissingError, UsageError
from mindset.llm.request import Options

QUICK = Options(max_tokens=3, temperature=0.0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teacher(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return student(tmp_path_factory.mktemp("models") / "memory")


@pytest.fixture
def log() -> Iterator[CallLog]:
    opened = CallLog.open()
    yield opened
    opened.close()


def chat(
    log: CallLog,
    model: Path | str | None,
    lines: str,
    options: Options = QUICK,
    *,
    go_on: bool = False,
    ram: int | None = None,
) -> Session:
    asking = Asking(None if model is None else str(model), None, options, (), stream=True, ram=ram)
    with Edge() as edge, conversation(log, edge, asking, go_on=go_on, cid=None, insight=True) as held:
        session = Session(edge, held, Lines(io.StringIO(lines)), Screen(plain=True, person=True))
        session.run()
        return session


def untimed(shown: str) -> str:
    return re.sub(r"\[\d+ tokens in .*", "", shown)


def test_a_memory_is_talked_to_with_little_of_it_in_ram(
    log: CallLog, memory: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat(log, memory, "hello\n/why 1\n")
    wanted = untimed(capsys.readouterr().out)
    assert chat(log, memory, f"hello\n/why 1\n/model {plain}\nhello\n", ram=8 << 20).failed == 0
    assert untimed(capsys.readouterr().out).startswith(wanted.rstrip())
    with pytest.raises(UsageError, match="no memory here"):
        chat(log, plain, "hello\n", ram=8 << 20)
    with pytest.raises(UsageError, match="too few for this memory"):
        chat(log, memory, "hello\n", ram=1000)


def test_why_knows_the_slots_of_a_memory(
    log: CallLog, memory: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = chat(log, memory, "hello\n/why 1\n")
    assert session.failed == 0
    assert capsys.readouterr().out.count("(the model's own), influence") == 5
    assert session.dialog.options.reads == 5
    session = chat(log, plain, "hello\n/why 1\n")
    assert session.failed == 0
    assert "influence" not in capsys.readouterr().out
    assert (session.dialog.options.logprobs, session.dialog.options.reads) == (3, None)


def test_a_dialog_longer_than_the_model_reads_goes_on(
    log: CallLog, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = chat(log, plain, "".join(f"{number} {'x' * 300}\n" for number in range(5)))
    assert session.failed == 0  # it reads 1024 bytes
    assert capsys.readouterr().out.count("were not sent") == 1
    assert len(session.dialog.exchanges) == 5
    assert len(log.call(5).asked.nodes) < 9


def test_another_model_goes_on_with_the_dialog(log: CallLog, plain: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text(json.dumps("Scripted.") + "\n")
    session = chat(log, plain, f"one\n/model script:{script}\ntwo\n/model {tmp_path}/gone\n/branches\n")
    assert [exchange.question for exchange in session.dialog.exchanges] == ["one", "two"]
    assert session.dialog.exchanges[1].answer == "Scripted."
    assert session.failed == 1  # no such folder; the script stays
    branch = Threads(log.engine).latest()
    assert branch.model == f"script:{script}"
    again = chat(log, None, "three\n", go_on=True)
    assert again.dialog.client.model == branch.model


def test_there_is_nothing_to_go_on_with(log: CallLog) -> None:
    with pytest.raises(MissingError, match="no conversation yet"):
        chat(log, None, "", go_on=True)


def test_the_default_model_is_the_packaged_one() -> None:
    from mindset.cli import settings

    assert settings.default_model() == "smollm2"
    assert not places.home().exists()
