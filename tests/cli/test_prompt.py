from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminal import Terminal

from mindset.calls.log import CallLog


def script(tmp_path: Path, *answers: Any) -> str:
    file = tmp_path / "script.jsonl"
    file.write_text("".join(json.dumps(answer) + "\n" for answer in answers), encoding="utf-8")
    return f"script:{file}"


def prompt(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mindset", "prompt", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
    )


def asked(number: int) -> list[str]:
    """What call `number` was about: roles and words."""
    log = CallLog.open()
    nodes = log.call(number).asked.nodes
    log.close()
    return [f"{n.content['role']}: {''.join(p['text'] for p in n.content['parts'])}" for n in nodes]


@pytest.mark.parametrize(
    ("arguments", "stdin", "question"),
    [
        (["Who?"], "", "Who?"),
        (["-"], "From stdin.\n", "From stdin.\n"),
        ([], "From stdin.\n", "From stdin.\n"),
        (["Sum this up:"], "A long text.\n", "Sum this up:\n\nA long text.\n"),
        (["Who?"], " \n", "Who?"),
    ],
)
def test_what_is_asked(tmp_path: Path, arguments: list[str], stdin: str, question: str) -> None:
    result = prompt(*arguments, "-m", script(tmp_path, "Me."), "-s", "Be brief.", stdin=stdin)
    assert (result.stdout, result.stderr, result.returncode) == ("Me.\n", "", 0)
    assert asked(1) == ["system: Be brief.", f"user: {question}"]


def test_options_reach_the_model(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    pairs = ["max_tokens", "2"], ["temperature", "0.5"], ["stop", "x"], ["stop", "y"], ["extra.n", "[1]"]
    flags = [flag for pair in pairs for flag in ("-o", *pair)]
    result = prompt(
        "Who?", "-m", script(tmp_path, "one two three"), "--schema", schema, "--no-stream", *flags
    )
    assert result.stdout == "one two\n"
    log = CallLog.open()
    assert log.call(1).asked.options == {
        "max_tokens": 2,
        "temperature": 0.5,
        "stop": ["x", "y"],
        "schema": {"type": "object"},
        "extra": {"n": [1]},
    }
    log.close()


def test_json_and_going_on(tmp_path: Path) -> None:
    model = script(tmp_path, "First.")
    first = json.loads(prompt("one", "-m", model, "--json").stdout)
    assert first.keys() == {
        *("text", "model", "finish_reason", "usage", "seconds", "first_token", "cost", "call", "node"),
        *("conversation", "branch"),
    }
    assert (first["text"], first["finish_reason"], first["cost"]) == ("First.", "stop", 0.0)
    assert first["usage"]["completion_tokens"] == 1
    second = json.loads(prompt("two", "-c", "--json").stdout)
    assert (second["conversation"], second["call"]) == (first["conversation"], 2)
    assert asked(2) == ["user: one", "assistant: First.", "user: two"]
    other = json.loads(prompt("three", "-m", model, "--json").stdout)
    assert other["conversation"] != first["conversation"]
    third = json.loads(prompt("four", "--cid", str(first["conversation"]), "--json").stdout)
    assert len(asked(third["call"])) == 5
    log = CallLog.open()
    assert log.tree.get(third["node"]).content is not None
    log.close()


def test_tools_run(tmp_path: Path) -> None:
    tools = tmp_path / "tools.py"
    tools.write_text('def add(a: int, b: int) -> int:\n    """Add two numbers."""\n    return a + b\n')
    wish = {"text": "See: ", "tool_calls": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}
    model = script(tmp_path, wish, "3.")
    assert prompt("1 + 2?", "-m", model, "-T", tools).stdout == "See: 3.\n"
    told = json.loads(prompt("1 + 2?", "-m", model, "-T", tools, "--json").stdout)
    assert (told["text"], told["call"]) == ("3.", 4)
    assert told["usage"]["completion_tokens"] > 1  # of both calls


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["-m", "script:none.jsonl", "hi"], 1, "no such script"),
        (["-c", "hi"], 1, "there is no conversation yet"),
        (["", "-m", "script:x"], 2, "there is nothing to ask"),
        (["hi", "-o", "max_tokens", "0"], 2, "max_tokens=0 cannot be"),
        (["hi", "-o", "max_tokens", "many"], 2, "max_tokens is a whole number"),
        (["hi", "--schema", "none.json"], 2, "does not exist"),
        (["hi", "--cid", "0"], 2, "0 is not in the range"),
        (["hi", "more"], 2, "unexpected extra argument"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, sentence: str) -> None:
    result = prompt(*arguments)
    assert result.returncode == code
    assert sentence in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_an_answer_that_breaks_off_is_a_failure(tmp_path: Path) -> None:
    model = script(tmp_path, {"text": "half an answer", "fails": "the line is dead", "fails_after": 2})
    result = prompt("hi", "-m", model)
    assert (result.stdout, result.returncode) == ("half an\n", 1)
    assert "the line is dead" in result.stderr
    schema = tmp_path / "list.json"
    schema.write_text("[]")
    assert "a schema is an object" in prompt("hi", "-m", model, "--schema", schema).stderr


def test_who_is_interrupted_keeps_what_had_come(tmp_path: Path) -> None:
    model = script(tmp_path, {"text": "one two three four five six seven eight", "pace": 0.5})
    with Terminal("prompt", "count", "-m", model) as running:
        running.until("two")
        running.type("\x03")
        running.until("Stopped; what had come is kept as call 1")
        assert running.ends() == 130
    log = CallLog.open()
    outcome = log.call(1).outcome
    assert outcome.status == "cancelled"
    assert outcome.answer[0].content["parts"][0]["text"].startswith("one two")
    log.close()


def test_a_reader_that_has_heard_enough_is_no_error(tmp_path: Path) -> None:
    model = script(tmp_path, {"text": "line\n" * 2000})
    command = ["sh", "-c", '"$0" -m mindset prompt hi -m "$1" | head -n 1', sys.executable, model]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (result.stdout, result.stderr) == ("line\n", "")


@pytest.mark.packaged_model
def test_the_packaged_model_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDSET_CALLS", f"sqlite:///{tmp_path / 'calls.sqlite'}")
    properties = {"city": {"enum": ["Paris", "Rome"]}}
    schema = tmp_path / "city.json"
    schema.write_text(json.dumps({"type": "object", "properties": properties, "required": ["city"]}))
    result = prompt("What is the capital of France?", "--schema", schema, "-o", "max_tokens", "30")
    assert (result.stderr, json.loads(result.stdout)["city"]) == ("", "Paris")
