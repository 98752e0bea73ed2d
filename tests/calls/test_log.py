"""What the log promises, on both databases: rows before calls, nothing lost, everything found again."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from calls.said import asked, call, message, ok, pieces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindset.calls.call import Asked, NewNode, Outcome, Piece, Retry, Usage
from mindset.calls.log import CallLog
from mindset.calls.runs import run
from mindset.calls.schema import CALLS
from mindset.database.engine import reading
from mindset.errors import MissingError, NotRecordedError, ReadOnlyError, UsageError


def row(log: CallLog, made: int) -> dict[str, object]:
    with reading(log.engine) as connection:
        return dict(connection.execute(sa.select(CALLS).where(CALLS.c.id == made)).mappings().one())


def test_a_call_is_a_row_from_its_beginning(log: CallLog) -> None:
    made = log.begin(asked("who?", max_tokens=3))
    begun = row(log, made)
    assert (begun["status"], begun["verb"], begun["model"], begun["client"]) == (
        "running", "complete", "smollm2", "script",
    )  # fmt: skip
    assert begun["options"] == '{"max_tokens":3}'
    assert begun["answered"] is begun["seconds"] is None
    log.note(made, pieces("me", " and"))
    log.note(made, [])
    log.finish(made, ok("me and you"), pieces(" you", begin=1))
    ended = row(log, made)
    assert (ended["status"], ended["prompt_tokens"], ended["cached_tokens"]) == ("ok", 10, 1)
    found = log.call(made)
    assert found.asked == asked("who?", max_tokens=3)
    assert found.pieces == (*pieces("me", " and"), *pieces(" you", begin=1))
    assert found.outcome == ok("me and you")


FULL = Outcome(
    "failed",
    (message("assistant", "I"), NewNode("tool_call", {"id": "1", "name": "f", "arguments": "{"})),
    {"ids": [1, 2]},
    Usage(1, 2, 3, 4),
    "error",
    "it broke",
    "model-1",
    "ab12",
    2.25,
    0.125,
    1.5,
    (Retry(0.25, "busy", 0.5), Retry(1.0, "busy again", 0.75)),
    17,
    "https://api.example.org/v1",
)


def test_an_outcome_comes_back_whole(log: CallLog) -> None:
    first = call(log, "a", "b")
    made = log.begin(asked("c", parent=first))
    log.finish(made, FULL)
    assert log.call(made).outcome == FULL
    assert log.call(made).asked.parent == first


def test_verbs_without_a_dialog(log: CallLog) -> None:
    made = log.begin(Asked("encode", "m", "local", (), {"text": "ab"}))
    log.finish(made, Outcome("ok", result=[1, 2]))
    assert log.call(made).outcome == Outcome("ok", result=[1, 2])
    assert log.call(made).asked == Asked("encode", "m", "local", (), {"text": "ab"})


def test_the_nth_call_of_a_run_with_a_key(log: CallLog) -> None:
    with run("first") as first:
        one, _, two = call(log, "a", "1"), call(log, "b", "x"), call(log, "a", "2")
        log.begin(asked("a"))
    with run("first"):
        later = call(log, "a", "3")
    key = asked("a").key
    assert [log.recorded(first.id, key, n) for n in range(3)] == [log.call(one), log.call(two), None]
    assert log.recorded("first", key, 0) == log.call(later)
    assert log.recorded("first", asked("a"), 0) == log.call(later)
    assert log.recorded("first", asked("a", max_tokens=1), 0) is None
    with run("first"):
        call(log, "a", "4")
        assert log.recorded("first", key, 0) == log.call(later)
    with pytest.raises(MissingError, match="there is no run 'third'"):
        log.recorded("third", key, 0)


def test_a_name_means_the_run_that_was_no_replay(log: CallLog, monkeypatch: pytest.MonkeyPatch) -> None:
    with run("it") as original:
        call(log, "a", "1")
    monkeypatch.setenv("MINDSET_REPLAY", original.id)
    with run("it") as again:
        call(log, "a", "1")
    assert (again.replays, log.run_id("it"), log.run_id(again.id)) == (original.id, original.id, again.id)


def test_what_was_deleted_is_not_replayed_in_part(log: CallLog) -> None:
    with run("r"):
        call(log, "a", "1")
    [tip] = log.tree.tips()
    log.tree.delete(tip.hash)
    with pytest.raises(NotRecordedError, match="was deleted"):
        log.recorded("r", asked("a"), 0)
    assert log.nearest("r", asked("a")) is None


def test_the_nearest_is_the_one_most_alike(log: CallLog) -> None:
    with run("r"):
        near = call(log, asked("The capital of France?", "Paris.", "And of Spain?"), "Madrid")
        call(log, asked("The capital of France?", "Paris."), "x")
        call(log, "What is a dog?", "An animal.")
        log.finish(
            log.begin(Asked("embed", "smollm2", "script", (message("user", "And of Italy?"),))), ok("x")
        )
    found = log.nearest("r", asked("The capital of France?", "Paris.", "And of Italy?"))
    assert found == log.call(near)
    assert log.nearest("r", asked("What is a cat?")) == log.call(near + 2)


def test_runs_are_where_the_code_is(log: CallLog) -> None:
    outside = call(log, "a", "1")
    with run("outer") as outer:
        in_outer = call(log, "a", "1")
        with run("inner") as inner:
            in_inner = call(log, "a", "1")
        again = call(log, "a", "1")
    runs = [row(log, made)["run"] for made in (in_outer, in_inner, again)]
    assert runs == [outer.id, inner.id, outer.id]
    with reading(log.engine) as connection:
        names = dict(connection.execute(sa.text("SELECT id, name FROM runs")).all())
    assert str(names[row(log, outside)["run"]]).startswith("python: ")
    with pytest.raises(UsageError, match="no name for a run"), run(" "):
        pass


def test_mistakes_are_one_sentence(log: CallLog) -> None:
    made = call(log, "a", "b")
    with pytest.raises(UsageError, match=f"call {made} is over: ok"):
        log.finish(made, ok("c"))
    with pytest.raises(UsageError, match="is over"):
        log.note(made, pieces("c"))
    with pytest.raises(MissingError, match="there is no call 99 "):
        log.finish(99, ok("c"))
    with pytest.raises(MissingError, match=r"there is no call 99 .* to be the parent"):
        log.begin(asked("a", parent=99))
    with pytest.raises(UsageError, match="does not end as 'running'"):
        log.finish(log.begin(asked("a")), Outcome("running"))
    assert log.call(call(log, "a", "b")).outcome == ok("b")


def test_another_object_goes_on_with_a_call(log: CallLog) -> None:
    made = log.begin(asked("a"))
    log.note(made, pieces("b "))
    other = CallLog(log.engine)
    other.note(made, pieces("c", begin=1))
    other.finish(made, ok("bcd"), pieces("d", begin=2))
    found = log.call(made)
    assert [piece.event["text"] for piece in found.pieces] == ["b ", "c", "d"]


def test_one_object_a_database(url: sa.URL, tmp_path: Path) -> None:
    text = url.render_as_string(hide_password=False)
    log = CallLog.open(text)
    assert CallLog.open(text) is log
    reader = CallLog.open(text, read_only=True)
    assert reader is not log
    made = call(log, "a", "b")
    assert reader.call(made) == log.call(made)
    for do in (
        lambda: reader.begin(asked("a")), lambda: reader.note(made, pieces("a")), lambda: reader.finish(made, ok("a")),
    ):  # fmt: skip
        with pytest.raises((ReadOnlyError, UsageError)):
            do()
    log.close()
    assert CallLog.open(text) is not log


def test_threads_write_at_once(log: CallLog) -> None:
    def work(name: int) -> None:
        for turn in range(8):
            made = log.begin(asked(f"{name}", "same", f"{turn}"))
            log.note(made, pieces("x"))
            log.finish(made, ok(f"{name}.{turn}"), pieces("y", begin=2))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(log.engine) as connection:
        answers = connection.execute(sa.text("SELECT answer FROM texts ORDER BY answer")).scalars().all()
        statuses = set(connection.execute(sa.select(CALLS.c.status)).scalars())
    assert answers == sorted(f"{name}.{turn}" for name in range(6) for turn in range(8))
    assert statuses == {"ok"}
    assert log.tree.verify().problems == ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which Windows lacks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_goes_on_with_connections_of_its_own(log: CallLog) -> None:
    made = call(log, "a", "b")
    child = os.fork()
    if child == 0:
        try:
            call(log, "child", "c")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    after = call(log, "parent", "d")
    with reading(log.engine) as connection:
        processes = connection.execute(sa.text("SELECT id, process FROM calls ORDER BY id")).all()
    assert len(processes) == 3
    assert processes[0].process == processes[2].process != processes[1].process
    assert (made, after) == (processes[0].id, processes[2].id)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
EVENT = st.dictionaries(TEXT, TEXT | st.integers() | st.lists(TEXT, max_size=2), max_size=3)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(TEXT, min_size=1, max_size=4),
    st.lists(st.lists(EVENT, max_size=4), max_size=4),
    TEXT,
    st.none() | TEXT,
)
def test_any_text_comes_back(
    log: CallLog, dialog: list[str], events: list[list[dict[str, object]]], answer: str, error: str | None
) -> None:
    question = asked(*dialog, model="m\x00" + dialog[0])
    made = log.begin(question)
    said = [[Piece(0.25 * place, event) for place, event in enumerate(part)] for part in events]
    for part in said[:-1]:
        log.note(made, part)
    outcome = Outcome("failed", (message("assistant", answer),), error=error)
    log.finish(made, outcome, said[-1] if said else ())
    found = log.call(made)
    assert found.pieces == tuple(piece for part in said for piece in part)
    assert found.asked.nodes == question.nodes
    assert found.outcome.answer == outcome.answer
    assert found.outcome.error == (None if error is None else error.replace("\x00", " "))
    assert log.recorded(str(row(log, made)["run"]), question, 0) is not None
