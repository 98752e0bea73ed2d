"""Lists, costs, drawings, checks and pruning of a log, against what was put in; on both databases."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from calls.said import asked, call, message, ok, pieces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindset.calls.call import Asked, Outcome, Usage
from mindset.calls.checking import check
from mindset.calls.costs import costs
from mindset.calls.drawing import drawn, node_named
from mindset.calls.listing import Wanted, listed
from mindset.calls.log import CallLog
from mindset.calls.pruning import compact, prune
from mindset.calls.runs import run
from mindset.calls.schema import CALLS, NODES, PIECES, PROCESSES
from mindset.calls.showing import exported, shown
from mindset.database.engine import dialect_of, reading, writing
from mindset.errors import MissingError, ReadOnlyError, UsageError


def ids(log: CallLog, **wanted: object) -> list[int]:
    return [line.id for line in listed(log, Wanted(**wanted))]  # type: ignore[arg-type]


def backdate(log: CallLog, made: int, days: float) -> str:
    when = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")
    with writing(log.engine) as connection:
        connection.execute(sa.update(CALLS).where(CALLS.c.id == made).values(began=when))
    return when


def test_a_list_is_what_was_asked_for(log: CallLog) -> None:
    with run("first") as first:
        one = call(log, "The capital of France?", "It is Paris.")
        two = call(log, asked("A dog?", model="openai:gpt-4o"), "No, a cat.")
    with run("second"):
        three = log.begin(asked("Who is in Paris?"))
        log.finish(three, Outcome("failed", error="no luck"))
        four = log.begin(asked("The capital of Spain?"))
    assert ids(log) == [four, three, two, one]
    assert ids(log, count=2) == [four, three]
    assert ids(log, text="paris") == [three, one]
    assert ids(log, text="capital") == [one]
    assert ids(log, text="paris -france") == [three]
    assert ids(log, text='"is paris"') == [one]
    assert ids(log, text="paris", count=1) == [three]
    assert ids(log, text="paris", status="ok") == [one]
    assert ids(log, model="openai:gpt-4o") == [two]
    assert ids(log, model="openai:gpt-4o", text="dog", run="first", status="ok") == [two]
    assert ids(log, model="openai:gpt-4o", text="paris") == ids(log, model="nobody", text="paris") == []
    assert ids(log, status="failed") == [three]
    assert ids(log, status="running") == [four]
    assert ids(log, status="ok") == [two, one]
    assert ids(log, run="second") == [four, three]
    assert ids(log, run=first.id, text="dog") == [two]
    backdate(log, one, 3)
    assert ids(log, since=(datetime.now(UTC) - timedelta(days=1)).isoformat()) == [four, three, two]
    line = listed(log, Wanted(status="failed"))[0]
    assert (line.prompt, line.answer, line.error, line.run_name) == (
        "Who is in Paris?",
        "",
        "no luck",
        "second",
    )
    assert listed(log, Wanted(status="running"))[0].prompt == "The capital of Spain?"
    assert listed(log, Wanted(count=None))[-1].answer == "It is Paris."


def test_a_search_looks_at_what_is_new(log: CallLog) -> None:
    system = message("system", "You are a pirate.")
    first = call(log, Asked("complete", "m", "script", (system, message("user", "hello"))), "ahoy")
    history = (system, message("user", "hello"), message("assistant", "ahoy"), message("user", "bye"))
    second = call(log, Asked("complete", "m", "script", history), "arrr")
    assert ids(log, text="hello") == [first]
    assert ids(log, text="ahoy") == [first]
    assert ids(log, text="bye") == [second]
    assert ids(log, text="pirate") == []
    alone = call(log, Asked("complete", "m", "script", (system,)), "aye")
    assert ids(log, text="pirate") == [alone]


def test_mistakes_in_a_list_are_one_sentence(log: CallLog) -> None:
    with pytest.raises(UsageError, match="never 'lost'"):
        Wanted(status="lost")
    with pytest.raises(UsageError, match="0 calls cannot be listed"):
        Wanted(count=0)
    with pytest.raises(UsageError, match="names no word"):
        listed(log, Wanted(text="-"))


def test_costs_add_up(log: CallLog) -> None:
    with run("cheap") as cheap:
        call(log, "a", "b")
        made = log.begin(asked("c"))
        log.finish(made, Outcome("failed", usage=Usage(5), seconds=0.5, local_seconds=0.25))
    with run("dear"):
        dear = log.begin(Asked("complete", "openai:gpt-4o-mini", "openai", asked("a").nodes))
        log.finish(dear, ok("b", usage=Usage(1000, 100), endpoint="https://api.openai.com/v1"))
        unknown = log.begin(Asked("complete", "https://x.example/v1#m", "openai", asked("a").nodes))
        log.finish(unknown, ok("b", usage=Usage(7, 3)))
        log.begin(asked("still"))
    price = shown(log, dear)["cost"]
    by_model = costs(log)
    assert [one.name for one in by_model] == ["openai:gpt-4o-mini", "smollm2", "https://x.example/v1#m"]
    assert (by_model[0].cost, by_model[0].prompt_tokens, by_model[0].unpriced) == (price, 1000, 0)
    assert (by_model[1].calls, by_model[1].failed, by_model[1].cost, by_model[1].local_seconds) == (
        3,
        1,
        0,
        0.25,
    )
    assert (by_model[2].calls, by_model[2].unpriced) == (1, 1)
    by_run = costs(log, "run")
    assert [(one.name, one.calls, one.cost) for one in by_run] == [("dear", 3, price), ("cheap", 2, 0)]
    assert by_run[1].run == cheap.id
    backdate(log, made, 400)
    by_day = costs(log, "day")
    assert [one.calls for one in by_day] == [4, 1]
    assert by_day[0].name == datetime.now(UTC).date().isoformat() > by_day[1].name
    assert [one.calls for one in costs(log, "day", Wanted(run="cheap"))] == [1, 1]
    assert sum(one.completion_tokens for one in by_day) == sum(one.completion_tokens for one in by_model)


def test_a_call_in_full(log: CallLog) -> None:
    with run("r") as made_in:
        first = call(log, asked("a", seed=3), "b", pieces("b", "c", "d", begin=0.5))
        second = log.begin(asked("x", parent=first))
    told = shown(log, first)
    assert json.loads(json.dumps(told)) == told
    assert (told["status"], told["options"], told["calls_below"]) == ("ok", {"seed": 3}, [second])
    assert told["run"]["id"] == made_in.id
    assert [node["content"]["role"] for node in told["asked"] + told["answer"]] == ["user", "assistant"]
    assert told["pieces_a_second"] == 8
    assert [event["text"] for _, event in told["pieces"]] == ["b", "c", "d"]
    log.tree.delete(told["answer"][0]["hash"])
    again = shown(log, first)
    assert again["answer"][0]["content"] is None
    assert again["answer"][0]["deleted"]
    assert again["pieces"] == []
    assert [one["id"] for one in exported(log, Wanted())] == [second, first]
    assert "pieces" not in next(exported(log, Wanted()))
    with pytest.raises(MissingError, match="there is no call 99"):
        shown(log, 99)


def test_a_drawing_of_forks(log: CallLog) -> None:
    one = call(log, "who?", "me")
    two = call(log, "who?", "you")
    three = call(log, asked("who?", "you", "really?\nsure?"), "yes")
    lines = [one.line for one in drawn(log, node_named(log, str(three)))]
    shapes = [re.sub(r"[0-9a-f]{8}  ", "", line) for line in lines]
    assert shapes == [
        "user: who?",
        f"├─ assistant: me   [call {one}]",
        f"└─ assistant: you   [call {two}]",
        "   user: really? sure?",
        f"   assistant: yes   [call {three}]",
    ]
    tip = log.tree.tips()[-1].hash
    assert node_named(log, tip[:12]) in {one.hash for one in log.tree.tips()}
    log.tree.delete(tip)
    assert any("(deleted)" in one.line for one in drawn(log, tip))


def test_a_drawing_of_a_large_tree_is_the_path_and_what_hangs_below(log: CallLog) -> None:
    root = log.tree.add("message", {"role": "system", "text": "all begin so"})
    with writing(log.engine) as connection:
        from mindset.calls.call import NewNode
        from mindset.calls.tree import put

        for n in range(250):
            put(connection, [NewNode("message", {"text": str(n)})], root)
    branch = log.tree.add("message", {"text": "mine"}, root)
    tip = log.tree.add("message", {"text": "and on"}, branch)
    lines = [one.line for one in drawn(log, branch)]
    assert len(lines) == 3
    assert lines[0].endswith("(+ 250 branches)")
    assert lines[2].startswith(tip[:8])


def test_a_long_dialog_is_drawn(log: CallLog) -> None:
    node = None
    for n in range(150):
        node = log.tree.add("message", {"text": str(n)}, node)
    assert node is not None
    assert len(drawn(log, node)) == 150
    with pytest.raises(MissingError, match="no call 7 "):
        node_named(log, "7")
    made = log.begin(Asked("encode", "m", "local"))
    with pytest.raises(MissingError, match="has no dialog"):
        node_named(log, str(made))


def test_a_whole_log_has_no_problems(log: CallLog) -> None:
    call(log, "a", "b")
    call(log, asked("a", "b", "c"), "d")
    log.finish(log.begin(Asked("encode", "m", "local", (), {"text": "x"})), Outcome("ok", result=[1]))
    log.begin(asked("runs"))
    assert check(log).problems == ()
    log.tree.delete(log.tree.tips()[0].hash)
    found = check(log)
    assert (found.calls, found.nodes, len(found.tombstones), found.problems) == (4, 5, 1, ())


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (
            "UPDATE calls SET options = '{\"seed\":4}' WHERE id = 1",
            "call 1: what it asked is not what its key",
        ),
        ("UPDATE calls SET options = '{' WHERE id = 1", "call 1: its options are no JSON"),
        ("UPDATE calls SET model = 'other' WHERE id = 1", "call 1: what it asked is not"),
        ("UPDATE calls SET answered = asked, asked = answered WHERE id = 1", "call 1: "),
        ("UPDATE nodes SET content = replace(content, 'hello', 'hallo')", "is not what it was made of"),
        ("UPDATE nodes SET kind = 'massage' WHERE parent IS NULL", "is not what it was made of"),
    ],
)
def test_planted_damage_is_found(log: CallLog, statement: str, sentence: str) -> None:
    call(log, asked("hello", seed=3), "you")
    with writing(log.engine) as connection:
        connection.exec_driver_sql(statement)
    assert any(sentence in problem for problem in check(log).problems)


def test_damaged_pieces_are_found(log: CallLog) -> None:
    made = call(log, "a", "b")
    with writing(log.engine) as connection:
        connection.execute(sa.update(PIECES).values(events=b"[1"))
    assert [problem for problem in check(log).problems if f"call {made}: a row of pieces" in problem]


def test_pruning_keeps_what_is_needed(log: CallLog) -> None:
    old = call(log, "start", "old")
    kept = call(log, asked("start", "old", "more"), "kept")
    lone = call(log, "lone", "gone")
    running = log.begin(asked("runs"))
    held = log.tree.add(
        "note", {"text": "an agent holds on"}, log.tree.find(shown(log, lone)["asked"][0]["hash"])
    )
    own = log.tree.add("note", {"text": "nobody's call"})
    for made in (old, lone, running):
        backdate(log, made, 10)
    before = (datetime.now(UTC) - timedelta(days=5)).isoformat()
    assert prune(log, before=before, dry=True).calls == 2
    assert ids(log) == [running, lone, kept, old]
    gone = prune(log, before=before)
    assert (gone.calls, gone.nodes) == (2, 1)
    assert ids(log) == [running, kept]
    assert check(log).problems == ()
    assert log.call(kept).asked == asked("start", "old", "more")
    assert [node.content["text"] for node in log.tree.path(held) if node.content and "text" in node.content]
    assert log.tree.get(own)
    assert ids(log, text="gone") == []
    with reading(log.engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(PIECES)).scalar() == 1
    log.finish(running, ok("done"))
    assert call(log, "lone", "again") > running


def test_keeping_the_last_ones(log: CallLog) -> None:
    made = [call(log, str(n), "x") for n in range(6)]
    assert prune(log, keep=2).calls == 4
    assert ids(log) == made[:-3:-1]
    assert prune(log, keep=2).calls == 0
    assert prune(log, keep=0).calls == 2
    assert check(log) == check(log)
    assert check(log).nodes == 0
    assert call(log, "a", "b") > made[-1]
    assert check(log).problems == ()


def test_runs_and_processes_that_are_over_go_too(log: CallLog) -> None:
    with run("over"):
        call(log, "a", "b")
    with writing(log.engine) as connection:
        connection.execute(sa.update(PROCESSES).values(began="long ago"))
    assert prune(log, keep=0).runs == 1
    with reading(log.engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(PROCESSES)).scalar() == 0
    assert log.call(call(log, "a", "b")).outcome == ok("b")
    assert check(log).problems == ()


def test_mistakes_in_pruning_are_one_sentence(log: CallLog) -> None:
    with pytest.raises(UsageError, match="say what to keep"):
        prune(log)
    with pytest.raises(UsageError, match="-1 calls cannot be kept"):
        prune(log, keep=-1)
    with pytest.raises(ReadOnlyError):
        prune(CallLog(log.engine, read_only=True), keep=0)


def test_compacting_takes_deleted_words_off_the_disk(log: CallLog) -> None:
    for n in range(30):
        call(log, f"Rumpelstiltskin {n} " + "word " * 300, "Rumpelstiltskin")
    prune(log, keep=0)
    saved = compact(log)
    if dialect_of(log.engine) == "postgresql":
        assert saved is None
        return
    assert saved is not None
    assert saved > 0
    place = Path(str(log.engine.url.database))
    assert all(b"Rumpelst" not in path.read_bytes() for path in place.parent.glob(f"{place.name}*"))
    assert check(log).problems == ()


TEXT = st.sampled_from(["a", "b", "c"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(TEXT, min_size=1, max_size=4), TEXT), min_size=1, max_size=8), st.data())
def test_pruning_never_breaks_what_stays(
    log: CallLog, dialogs: list[tuple[list[str], str]], data: st.DataObject
) -> None:
    prune(log, keep=0)
    made = [call(log, asked(*texts), answer) for texts, answer in dialogs]
    tips = log.tree.tips()
    if data.draw(st.booleans()):
        log.tree.delete(data.draw(st.sampled_from(tips)).hash)
    before = {one: shown(log, one) for one in made}
    keep = data.draw(st.integers(0, len(made)))
    prune(log, keep=keep)
    assert {one: shown(log, one) for one in made[len(made) - keep :]} == {
        one: before[one] for one in made[len(made) - keep :]
    }
    assert check(log).problems == ()
    needed = {
        node["hash"]
        for one in made[len(made) - keep :]
        for node in before[one]["asked"] + before[one]["answer"]
    }
    with reading(log.engine) as connection:
        assert set(connection.execute(sa.select(NODES.c.hash)).scalars()) == needed
