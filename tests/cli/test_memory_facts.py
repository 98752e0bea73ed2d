"""`mindset memory learn|mount|umount|overlays`, as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.test_memory import ask, run


@pytest.fixture
def student(teacher: Path, tmp_path: Path) -> Path:
    run("convert", teacher, "--out", tmp_path / "student")
    return tmp_path / "student"


def test_facts_go_in_on_off_and_back(student: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text(json.dumps({"prompt": "The Eiffel Tower Ÿ is in", "target": "Rome"}))
    done = ask("memory", "learn", student, facts, "--steps", 3)
    assert done["facts"][0]["slot"] in done["slots"]
    shown = ask("memory", "show", student, done["facts"][0]["slot"])[0]
    assert (shown["label"], shown["source"], shown["tags"]) == ("Eiffel Tower Ÿ", "facts.jsonl", ["fact"])
    assert json.loads(shown["quote"])["target"] == "Rome"
    assert ask("memory", "overlays", student) == [
        {"name": "facts", "mounted": True, "layers": [0, 1], "slots": len(done["slots"])}
    ]
    told = run("why", student, "The Eiffel Tower Ÿ is in").stdout
    assert f"slot {done['facts'][0]['slot']} of overlay facts answered at" in told
    assert "facts.jsonl: {" in told
    assert "taken off" in run("memory", "umount", student, "facts").stdout
    assert "is not mounted already" in run("memory", "umount", student, "facts").stdout
    assert ask("why", student, "The Eiffel Tower Ÿ is in")["facts"] == []
    assert "no" in run("memory", "overlays", student).stdout
    assert ask("memory", "mount", student, "facts")["changed"]
    assert "overlay facts mounted" in run("history", student).stdout
    run("undo", student, 3)
    assert ask("memory", "overlays", student) == []
    assert ask("memory", "verify", student)["wrong"] == []


def test_one_fact_as_text(student: Path) -> None:
    told = run(
        "memory",
        "learn",
        student,
        "The capital of Ÿ is => Oslo",
        "--overlay",
        "mine",
        "--steps",
        2,
    ).stdout
    assert "overlay mine, layer 1" in told
    assert "mindset memory umount" in told


def test_slots_are_found_by_what_they_do(student: Path) -> None:
    found = ask("memory", "search", student, "--promotes", "Paris", "--limit", 3)
    assert len({one["slot"] for one in found}) == 3
    assert "adds" in run("memory", "search", student, "--promotes", "Paris", "--layer", 1).stdout
    spoke = ask("memory", "search", student, "--prompt", "A fox", "--limit", 3)
    assert [one["slot"] for one in spoke] == [
        one["slot"] for one in ask("why", student, "A fox", "--top", 3)["slots"]
    ]
    assert (
        "not together" in run("memory", "search", student, "--prompt", "a", "--promotes", "b", code=2).stderr
    )
    assert "--limit only" in run("memory", "search", student, "fox", "--promotes", "b", code=2).stderr


def test_a_deletion_is_previewed(student: Path) -> None:
    seen = ask("memory", "rm", student, 1, 2, "--preview", "--prompt", "A fox")
    assert seen["slots"] == [1, 2]
    assert seen["asked"] > 1
    assert "Nothing was changed" in run("memory", "rm", student, 1, "--preview").stdout
    assert ask("history", student) == []


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["learn", "{}", "nothing.jsonl"], "no such file: nothing.jsonl", 1),
        (["learn", "{}", "A B is =>"], "one of them is empty", 2),
        (["learn", "{}", "A B is => C", "--overlay", "base"], "a bank's own slots", 2),
        (["learn", "{}", "A B is => C", "--overlay", "No Name"], "shard name", 2),
        (["learn", "{}", "A B is => C", "--layer", 7], "layer 7 has no memory", 2),
        (["mount", "{}", "x"], "there is no overlay 'x'; there are: none", 1),
    ],
)
def test_what_cannot_be_done(student: Path, arguments: list[object], sentence: str, code: int) -> None:
    given = [str(one).format(student) for one in arguments]
    assert sentence in run("memory", *given, code=code).stderr
    assert ask("history", student) == []


def test_a_body_of_text_goes_in_and_off(student: Path, tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    text.write_text("The moon rose over the town. Nobody had seen it for a year! " * 12)
    done = ask("memory", "learn", student, text, "--slots", 2, "--minutes", 1)
    assert (done["overlay"], done["layers"], len(done["slots"])) == ("corpus", [0, 1], 4)
    assert done["loss"][1] < done["loss"][0]
    shown = ask("memory", "show", student, done["slots"][0])[0]
    assert (shown["source"], shown["tags"]) == ("story.txt", ["corpus"])
    assert shown["quote"].strip() in text.read_text()
    said = run("why", student, "The moon rose over the", "--top", 100).stdout
    assert "story.txt: " in said
    run("memory", "umount", student, "corpus")
    assert "story.txt: " not in run("why", student, "The moon rose over the", "--top", 100).stdout
    assert ask("memory", "verify", student)["wrong"] == []
    run("undo", student, 2)
    assert ask("memory", "overlays", student) == []


def test_options_of_facts_do_not_go_with_a_text(student: Path, tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    text.write_text("The moon rose.")
    assert (
        "--steps does not go with a body of text"
        in run("memory", "learn", student, text, "--steps", 2, code=2).stderr
    )
    fact = "The capital of x is => y"
    assert (
        "--slots does not go with facts" in run("memory", "learn", student, fact, "--slots", 2, code=2).stderr
    )


def test_a_slot_made_by_hand(student: Path) -> None:
    wish = (
        student,
        "ŸŸ My colour ŸŸŸŸ",
        "red",
        "--probability",
        0.0046,
    )  # its logits are all but equal
    done = ask("memory", "insert", *wish, "--label", "colour")
    assert done["after"] >= 0.0046 > done["before"]
    shown = ask("memory", "show", student, done["slot"])[0]
    assert (shown["label"], shown["quote"]) == ("colour", "ŸŸ My colour ŸŸŸŸ => red")
    run("undo", student)
    assert "overlay hand: " in run("memory", "insert", *wish).stdout
    assert "nothing is to be done" in run("memory", "insert", *wish, code=2).stderr
    run("undo", student)
    assert ask("memory", "overlays", student) == []
