"""Keys never reach the database, in one piece or in many."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from calls.said import asked, message, ok
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mindset.calls.call import Asked, NewNode, Outcome, Piece, Retry
from mindset.calls.log import CallLog
from mindset.calls.pieces import unpack
from mindset.calls.redact import Redactor, Stream
from mindset.calls.runs import run
from mindset.calls.secrets import MARK, SHAPES, Shape
from mindset.database.engine import reading
from mindset.errors import UsageError

OPENAI = "sk-proj-Ab12_cd34-Ef56gh78Ij90kl"
GIVEN = "my given key 0815!"
VARIABLE = 'value "of" a\\variable'
KEYS = {
    "OpenAI": OPENAI, "Anthropic": "sk-ant-api03-" + "aB3" * 20, "Hugging Face": "hf_" + "aB3" * 9,
    "Google": "AIza" + "aB3-_" * 7, "Amazon": "AKIAIOSFODNN7EXAMPLE", "GitHub": "ghp_" + "aB3" * 12,
    "Groq": "gsk_" + "a3" * 20, "known": GIVEN, "variable": VARIABLE,
}  # fmt: skip


@pytest.fixture
def redactor(monkeypatch: pytest.MonkeyPatch) -> Redactor:
    monkeypatch.setenv("SOME_API_KEY", VARIABLE)
    monkeypatch.setenv("SHORT_API_KEY", "abc")
    made = Redactor()
    made.know(GIVEN)
    return made


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_key_is_taken_out(redactor: Redactor, key: str) -> None:
    for text in (key, f"it is {key}.", f'"{key}"', f"x={key}\n{key}"):
        assert redactor.text(text) == text.replace(key, MARK)
        assert redactor.text(redactor.text(text)) == redactor.text(text)
    assert redactor.json({"a": [key, {key: 1}], "b": f"<{key}>"}) == {
        "a": [MARK, {MARK: 1}],
        "b": f"<{MARK}>",
    }


@pytest.mark.parametrize(
    "text",
    [
        "abc", "sk-learn", "a task-force-for-everybody-and-everything-1", "sk-this-is-only-a-very-long-word-of-words",
        "Bearer of bad news", "Authorization: Bearer short", "the hf_hub", MARK, "", "risk-012345678901234567890123456",
    ],
)  # fmt: skip
def test_ordinary_text_is_left_alone(redactor: Redactor, text: str) -> None:
    assert redactor.text(text) is text or redactor.text(text) == text


def test_a_bearer_token_keeps_its_word(redactor: Redactor) -> None:
    assert redactor.text("Authorization: Bearer abc.def-123456789==\n") == f"Authorization: Bearer {MARK}\n"


def test_shapes_of_ones_own() -> None:
    redactor = Redactor((*SHAPES, Shape("corp-", "0-9", 4)), environment=False)
    assert redactor.text("corp-1234 sk-123") == f"{MARK} sk-123"
    with pytest.raises(UsageError, match="cannot begin a secret"):
        Shape("s", "0-9", 4)


def test_everything_of_a_call_is_redacted(redactor: Redactor) -> None:
    question = Asked(
        "complete", OPENAI, "script", (NewNode("message", {"role": "user", OPENAI: [OPENAI]}),), {"extra": {"k": GIVEN}}
    )  # fmt: skip
    clean = redactor.asked(question)
    outcome = Outcome(
        "failed", (message("assistant", OPENAI),), [OPENAI], error=f"wrong key {OPENAI}", answered_by=OPENAI,
        retries=(Retry(0.5, f"again {VARIABLE}", 1.0),),
    )  # fmt: skip
    ended = redactor.outcome(outcome)
    told = json.dumps([clean.model, [dict(n.content) for n in clean.nodes], dict(clean.options)]) + repr(
        ended
    )
    assert not any(key in told for key in (OPENAI, GIVEN, VARIABLE, json.dumps(VARIABLE)[1:-1]))
    assert (redactor.asked(clean), redactor.outcome(ended)) == (clean, ended)
    assert redactor.asked(asked("hello")) == asked("hello")


QUICKLY = [Phase.explicit, Phase.reuse, Phase.generate]
"""Shrinking a text in pieces takes minutes."""


def streamed(redactor: Redactor, parts: list[list[Piece]]) -> list[list[Piece]]:
    stream = Stream(redactor)
    stored = [stream.row(part) for part in parts] + [stream.row([], last=True)]
    return [[] if packed is None else unpack(packed) for packed in stored]


WORDS = st.lists(
    st.sampled_from([*KEYS.values(), " ", "a", "sk-", "Bearer", "hello", "\n", "s", "12", "risk-", "my given", "va"]),
    max_size=6,
)  # fmt: skip


@settings(max_examples=200, deadline=None, phases=QUICKLY)
@given(st.data())
def test_a_text_in_pieces_is_redacted_as_the_whole(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_API_KEY", VARIABLE)
        redactor = Redactor()
        redactor.know(GIVEN)
        texts = {kind: " ".join(data.draw(WORDS)) for kind in ("text", "reasoning")}
        rest, parts = dict(texts), [[]]
        while any(rest.values()):
            kind = data.draw(st.sampled_from([kind for kind, left in rest.items() if left]))
            size = data.draw(st.integers(1, 9))
            parts[-1].append(Piece(0.0, {"event": kind, "text": rest[kind][:size], "n": len(parts)}))
            rest[kind] = rest[kind][size:]
            if data.draw(st.integers(0, 3)) == 0:
                parts.append([])
        stored = streamed(redactor, parts)
        pieces = [piece for part in stored for piece in part]
        assert [piece.event["n"] for piece in pieces] == [
            piece.event["n"] for part in parts for piece in part
        ]
        for kind, text in texts.items():
            whole = "".join(str(piece.event["text"]) for piece in pieces if piece.event["event"] == kind)
            assert plain(whole) == plain(redactor.text(text))


def plain(text: str) -> str:
    """Without the few first letters of a key that may have been let through, before it was clear that it is one."""
    begun = [start[:n] for start in (*(s.start for s in SHAPES), GIVEN, VARIABLE) for n in range(1, 4)]
    return re.sub(
        f"(?:{'|'.join(map(re.escape, sorted(begun, key=len, reverse=True)))})*{re.escape(MARK)}", MARK, text
    )


@settings(max_examples=200, deadline=None, phases=QUICKLY)
@given(st.data())
def test_no_moment_shows_a_part_of_a_key(data: st.DataObject) -> None:
    redactor = Redactor(environment=False)
    key = data.draw(st.sampled_from([OPENAI, KEYS["Hugging Face"], KEYS["Amazon"]]))
    text = data.draw(st.sampled_from(["", "it is ", "x\n"])) + key
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    bounds = list(zip([0, *cuts], [*cuts, len(text)], strict=True))
    parts = [[Piece(0.0, {"event": "tool_call", "index": 0, "arguments": text[a:b]})] for a, b in bounds]
    stream = Stream(redactor)
    shown = ""
    for part in parts:
        packed = stream.row(part)
        shown += "".join(str(piece.event["arguments"]) for piece in unpack(packed)) if packed else ""
        assert not any(shown.endswith(key[:n]) for n in range(4, len(key) + 1))


def test_only_what_may_be_a_key_waits() -> None:
    redactor = Redactor(environment=False)
    told = streamed(
        redactor,
        [[Piece(0.0, {"event": "text", "text": text})] for text in ("Hi sk-", " sk-", "y", "y", " ")],
    )
    assert [[piece.event["text"] for piece in part] for part in told] == [
        ["Hi sk-"],
        [" sk-"],
        [],
        [],
        ["y", "y", " "],
        [],
    ]


def test_a_token_list_that_spells_a_key_goes(redactor: Redactor) -> None:
    event = {
        "event": "text",
        "text": f"a {OPENAI}",
        "tokens": [{"text": "a "}, {"text": OPENAI[:5]}, {"text": OPENAI[5:]}],
    }
    [_, [piece]] = streamed(redactor, [[Piece(0.0, event)]])
    assert piece.event == {"event": "text", "text": f"a {MARK}"}


def test_nothing_of_a_key_is_in_the_database(
    log: CallLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", VARIABLE)
    question = asked(f"my key is {OPENAI}", f"mine: {VARIABLE}", "ok?", key=OPENAI)
    with run("r"):
        made = log.begin(question)
    with run(f"run of {OPENAI}"):
        log.begin(question)
    log.note(made, [Piece(0.5, {"event": "retried", "reason": f"bad key {OPENAI}"})])
    for place in range(0, len(OPENAI), 5):
        log.note(made, [Piece(1.0, {"event": "text", "text": OPENAI[place : place + 5]})])
    log.finish(made, ok(OPENAI))
    with reading(log.engine) as connection:
        tables = sa.inspect(connection).get_table_names()
        rows = [row for name in tables for row in connection.exec_driver_sql(f"SELECT * FROM {name}")]  # noqa: S608
        told = "".join(map(str, rows))
    told += str(log.call(made).pieces)
    assert "sk-proj" not in told
    assert "of\\\\" not in told
    assert told.count(MARK) >= 5
    assert question.key not in told
    found = log.recorded("r", question, 0)
    assert found is not None
    assert "".join(str(piece.event.get("text", "")) for piece in found.pieces) == MARK
