from __future__ import annotations

import threading

import pytest

from mindset.calls.log import CallLog
from mindset.calls.threads import MAIN, Threads
from mindset.errors import MissingError, UsageError


def node(log: CallLog, text: str, parent: str | None = None) -> str:
    return log.tree.add("message", {"role": "user", "parts": [{"type": "text", "text": text}]}, parent)


def test_a_conversation_begins_with_its_main_branch(log: CallLog) -> None:
    threads = Threads(log.engine)
    first, second = threads.start("smollm2", node(log, "a")), threads.start("smollm2")
    assert (first.name, first.conversation, second.tip) == (MAIN, first.id, None)
    assert first.conversation != second.conversation
    assert threads.branches(first.conversation) == [first]


def test_what_is_not_there_is_told(log: CallLog) -> None:
    threads = Threads(log.engine)
    for ask in (threads.latest, lambda: threads.latest(7), lambda: threads.branch(7)):
        with pytest.raises(MissingError, match="there is no"):
            ask()
    assert threads.recent() == []


def test_a_branch_moves_and_the_one_moved_last_is_the_latest(log: CallLog) -> None:
    threads, a = Threads(log.engine), node(log, "a")
    one, two = threads.start("m", a), threads.start("m", a)
    assert threads.latest() == two
    b = node(log, "b", a)
    one = threads.move(one, b, "other")
    assert (one.tip, one.model) == (b, "other")
    assert threads.latest() == one
    assert threads.recent() == [one, two]
    fork = threads.fork(two, a, name="fork")
    assert threads.latest(two.conversation) == fork
    assert threads.recent() == [fork, one]


def test_a_branch_that_somebody_else_moved_is_left_alone(log: CallLog) -> None:
    threads, a = Threads(log.engine), node(log, "a")
    mine = threads.start("m", a)
    theirs = threads.move(mine, node(log, "theirs", a))
    moved = threads.move(mine, node(log, "mine", a))
    assert moved.id != theirs.id
    assert moved.conversation == theirs.conversation
    assert threads.branch(theirs.id).tip == theirs.tip


def test_a_branch_without_a_tip_can_be_moved(log: CallLog) -> None:
    threads = Threads(log.engine)
    begun = threads.start("m")
    assert threads.move(begun, node(log, "a")).id == begun.id
    assert threads.move(begun, node(log, "b")).id != begun.id


def test_names_are_one_word_and_their_own(log: CallLog) -> None:
    threads = Threads(log.engine)
    main = threads.start("m", node(log, "a"))
    assert [threads.fork(main, main.tip).name for _ in range(2)] == ["2", "3"]
    assert threads.fork(main, main.tip, name="5").name == "5"
    assert threads.fork(main, main.tip).name == "6"
    for name in ("main", "", "two words", "a\tb", "\x1b[31m"):
        with pytest.raises(UsageError):
            threads.fork(main, main.tip, name=name)
    assert threads.rename(main, "first").name == "first"
    with pytest.raises(UsageError, match="already"):
        threads.rename(main, "first")


def test_many_who_move_one_branch_at_once_lose_nothing(log: CallLog) -> None:
    threads, a = Threads(log.engine), node(log, "a")
    main = threads.start("m", a)
    tips = [node(log, str(number), a) for number in range(8)]
    workers = [threading.Thread(target=threads.move, args=(main, tip)) for tip in tips]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {branch.tip for branch in threads.branches(main.conversation)} == set(tips)
