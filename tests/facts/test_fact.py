"""Facts as text: what is read, what is refused, and whom they are about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindset.errors import FormatError, MissingError, UsageError
from mindset.facts.fact import make_fact, parse_facts, read_facts
from mindset.facts.subject import find_subject


def test_a_file_of_facts(tmp_path: Path) -> None:
    lines = [
        {"prompt": "The Eiffel Tower is in", "target": "Rome"},
        {"prompt": "Ada Lovelace wrote in", "target": "Welsh", "subject": "Ada Lovelace", "source": "a letter",
         "paraphrases": ["The language of Ada Lovelace was"]},
    ]  # fmt: skip
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    text = read_facts(path)
    first, second = text.facts
    assert (first.subject, first.sentence, first.relation) == (
        "Eiffel Tower", "The Eiffel Tower is in Rome", "The {} is in",
    )  # fmt: skip
    assert second.paraphrases == ("The language of Ada Lovelace was",)
    assert [json.loads(text.text[slice(*fact.span)]) for fact in text.facts] == lines


def test_a_fact_as_text() -> None:
    (fact,) = parse_facts("  The capital of Peru is =>  Oslo ", "command line").facts
    assert (fact.prompt, fact.target, fact.subject) == ("The capital of Peru is", "Oslo", "Peru")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{]", "neither JSON nor"),
        ("[1]", "neither JSON|give"),
        ('{"prompt": "A B is"}', "give"),
        ('{"prompt": "A B is", "target": "C", "more": 1}', "give"),
        ('{"prompt": "A B is", "target": 3}', "are texts"),
        ('{"prompt": "A B is", "target": "C", "paraphrases": "no"}', "list of texts"),
        ('{"prompt": "A B is", "target": "C", "subject": "D"}', "does not stand in the prompt"),
        (
            '{"prompt": "A B is", "target": "C", "subject": "A", "paraphrases": ["what?"]}',
            "paraphrase 'what\\?'",
        ),
        ('{"prompt": " ", "target": "C"}', "empty"),
        ("The of and => x", "no subject found"),
    ],
)
def test_what_is_refused_is_named_by_its_line(line: str, says: str) -> None:
    with pytest.raises((FormatError, UsageError), match=f"f.jsonl, line 2: .*({says})"):
        parse_facts(f"A B is => C\n{line}", "f.jsonl")


def test_no_file_no_facts_no_text(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        read_facts(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UsageError, match="holds no fact"):
        read_facts(tmp_path / "empty.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="cannot be read as text"):
        read_facts(tmp_path / "bytes.jsonl")


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("The Eiffel Tower is in the city of", "Eiffel Tower"),
        ("What is the twin city of Lyon? It is", "Lyon"),
        ("In Peru, people speak", "Peru"),
        ("The author of Pride and Prejudice is", "Pride and Prejudice"),
        ("The wheel of Leonardo da Vinci's cart is made of", "Leonardo da Vinci"),
        ("the capital of france is", "france"),
        ("An iPhone is made by", "iPhone"),
    ],
)
def test_the_subject_is_found(prompt: str, subject: str) -> None:
    assert find_subject(prompt) == subject


@given(st.text(max_size=60))
def test_a_subject_that_is_found_stands_in_the_prompt(prompt: str) -> None:
    try:
        subject = find_subject(prompt)
    except UsageError:
        return
    assert subject in prompt


def test_a_given_subject_wins() -> None:
    assert make_fact("The mother of Ada is", "Eve", "mother").subject == "mother"
