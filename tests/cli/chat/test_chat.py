"""The real command: on a terminal, in a pipe, and for programs."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminal import ESCAPES, Terminal

from mindset import places
from mindset.calls.log import CallLog

MOVES = re.compile(r"\x1b\[\d*(?:[ABEFHJ]|;\d+H)|\x1b[78]|\x1b\[[su]")
"""What goes back to a line that was printed, or clears one."""


def script(tmp_path: Path, *answers: Any) -> str:
    file = tmp_path / "script.jsonl"
    file.write_text("".join(json.dumps(answer) + "\n" for answer in answers), encoding="utf-8")
    return f"script:{file}"


def piped(text: str, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mindset", "chat", *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **env},
    )


def rows(printed: str) -> list[list[str]]:
    return [re.split(r"  +", line.strip()) for line in ESCAPES.sub("", printed).splitlines() if line.strip()]


def test_a_session_on_a_terminal(tmp_path: Path) -> None:
    slow = {"text": "one two three four five six seven eight nine ten", "pace": 0.3}
    model = script(tmp_path, {"text": "I am **here**.", "pace": 0.05}, slow, "Two.", "In Madrid.")
    with Terminal("chat", "-m", model) as chat:
        chat.until("Ctrl-D leaves]")
        chat.prompt()
        chat.enter("Who are you?")
        answer = chat.until("tokens in")
        assert "\x1b[1m**here**" in answer
        assert answer.index("I am") < answer.index("here")
        chat.prompt()

        chat.enter("Count.")  # Ctrl-C in mid answer keeps what had come
        answer = chat.until("two")
        chat.type("\x03")
        answer += chat.until("what had come is kept]")
        assert "ten" not in answer
        assert "^C" not in answer
        answered = " ".join(word for word in ESCAPES.sub("", answer).split() if word in slow["text"].split())
        chat.prompt()

        chat.enter("/edit")
        assert "Count." in chat.until("Count.")
        chat.enter(" Please.")
        chat.until("Two.")
        chat.prompt()
        chat.enter("/fork side")
        chat.until("on the new branch side]")
        chat.enter("/switch ma\t")  # completed
        chat.until("on branch main, after: Count.]")
        chat.enter("/tree")
        drawn = rows(chat.until("2 side"))
        assert [[cell for cell in row if not re.fullmatch("[0-9a-f]{8}", cell)] for row in drawn[-4:]] == [
            ["question", "answer", "hash", "branch"],
            ["Who are you?", "I am **here**."],
            ["*", "├─ Count.", answered, "main"],
            ["└─ Count. Please.", "Two.", "2 side"],
        ]
        chat.prompt()

        chat.enter("/back 7")
        chat.until("cannot go back 7: there are 2 questions on this branch")
        chat.enter("/search Madrid")
        chat.until("nothing found")
        chat.prompt()
        chat.enter("!multi")
        chat.enter("line one")
        chat.enter("line two")
        chat.enter("!end")
        chat.until("In Madrid.")
        chat.prompt()
        chat.enter("/search Madrid")
        chat.until("In Madrid.")
        chat.prompt()
        chat.type("\x04")
        assert chat.ends() == 0
    log = CallLog.open()
    assert [log.call(number).outcome.status for number in (1, 2, 3, 4)] == ["ok", "cancelled", "ok", "ok"]
    assert log.call(4).asked.nodes[-1].content["parts"][0]["text"] == "line one\nline two"
    assert log.tree.verify().problems == ()
    log.close()
    history = places.home() / "chat_history"
    assert "Who are you?" in history.read_text(encoding="utf-8")
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_an_answer_is_only_appended(tmp_path: Path) -> None:
    text = "# A head\n\n" + "many words " * 40 + "\n\n```python\nx = 1\n```\n- a\n- b\n"
    with Terminal("chat", "-m", script(tmp_path, {"text": text, "pace": 0.005}), columns=40) as chat:
        chat.prompt()
        chat.enter("Write.")
        chat.until("Write.")
        printed = chat.until("tokens in")
        after = printed[printed.index("A head") :]
        assert not MOVES.search(after)
        assert max(map(len, ESCAPES.sub("", after).splitlines())) <= 60  # the last line tells the cost
        assert "many words" in after


def test_a_terminal_that_is_closed_keeps_what_had_come(tmp_path: Path) -> None:
    model = script(tmp_path, {"text": "one two three four five six", "pace": 0.3})
    with Terminal("chat", "-m", model) as chat:
        chat.prompt()
        chat.enter("count")
        chat.until("two")
        chat.process.send_signal(signal.SIGHUP)
        assert chat.ends() == 128 + signal.SIGHUP
    result = piped("/tree\n", "-c", "--json")
    (row,) = json.loads(result.stdout)["rows"]
    assert row["answer"].startswith("one two")


def test_keys_typed_during_an_answer_are_for_the_next_line(tmp_path: Path) -> None:
    model = script(tmp_path, {"text": "one two three four", "pace": 0.2}, "Second.")
    with Terminal("chat", "-m", model) as chat:
        chat.prompt()
        chat.enter("first")
        chat.until("one")
        chat.type("typed ahead")
        assert "ahead" not in chat.until("tokens in")
        chat.until("ahead")
        chat.enter("")
        chat.until("Second.")


def test_a_conversation_goes_on_where_it_was(tmp_path: Path) -> None:
    model = script(tmp_path, "It is Paris.", "It is Rome.")
    assert piped("France?\nItaly?\n", "-m", model).stdout == "It is Paris.\nIt is Rome.\n"
    with Terminal("chat", "-c") as chat:
        chat.until("[conversation 1, branch main, exchange 2]")
        chat.until("It is Rome.")
        chat.prompt()
        chat.enter("/back")
        chat.until("before: Italy?]")
        chat.enter("Spain?")
        chat.until("It is Paris.")  # the script begins anew
        chat.prompt()
        chat.enter("/chats")
        assert rows(chat.prompt())[-1][:2] == ["*", "1"]
        chat.enter("/branches")
        assert [row[:2] for row in rows(chat.prompt())][-1] == ["*", "2"]


def test_tools_ask_first(tmp_path: Path) -> None:
    tools = tmp_path / "tools.py"
    tools.write_text('def add(a: int, b: int) -> int:\n    """Add two numbers."""\n    return a + b\n')
    wish = {"tool_calls": [{"id": "1", "name": "add", "arguments": {"a": 1, "b": 2}}]}
    model = script(tmp_path, wish, "It is 3.", wish, "Not allowed.", wish)
    with Terminal("chat", "-m", model, "-T", tools) as chat:
        chat.prompt()
        chat.enter("1 + 2?")
        chat.until('run add({"a": 1, "b": 2})?')
        chat.enter("y")
        chat.until("[add: 3]")
        chat.until("It is 3.")
        chat.prompt()
        chat.enter("again")
        chat.until("run add")
        chat.enter("n")
        chat.until("Not allowed.")
        chat.prompt()
        chat.enter("and again")
        chat.until("run add")
        chat.type("\x03")
        chat.until("[stopped; what had come is kept]")
        chat.prompt()
        chat.enter("/tools")
        chat.until("asks first")
        chat.prompt()


def test_in_a_pipe_a_line_is_a_turn_and_only_answers_go_to_stdout(tmp_path: Path) -> None:
    result = piped("one\n\ntwo\n/usage\nthree\n", "-m", script(tmp_path, "First **one**.", "Second."))
    assert result.stdout.startswith("First **one**.\nSecond.\nmodel")
    assert "\x1b" not in result.stdout + result.stderr
    assert "asked once more" in result.stderr
    assert result.returncode == 1  # the third got no answer


def test_in_a_pipe_nobody_is_greeted_and_tools_run(tmp_path: Path) -> None:
    wish = {"tool_calls": [{"id": "1", "name": "upper", "arguments": {"text": "abc"}}]}
    tools = tmp_path / "tools.py"
    tools.write_text('def upper(text: str) -> str:\n    """Shout."""\n    return text.upper()\n')
    result = piped("go", "-m", script(tmp_path, wish, "Done."), "-T", f"{tools}:upper")
    assert (result.stdout, result.returncode) == ("Done.\n", 0)
    assert result.stderr == "[upper: ABC]\n"


def test_a_dumb_terminal_gets_no_escapes(tmp_path: Path) -> None:
    with Terminal("chat", "-m", script(tmp_path, "**Yes**."), env={"TERM": "dumb"}) as chat:
        chat.prompt()
        chat.enter("well?")
        chat.until("**Yes**.")
        chat.prompt()
        chat.type("\x04")
        assert chat.ends() == 0
        assert "\x1b" not in chat.raw


def test_for_a_program_every_answer_is_a_line_of_json(tmp_path: Path) -> None:
    result = piped("one\n/tree\n/nope\n", "-m", script(tmp_path, "First."), "--json")
    answer, tree, wrong = map(json.loads, result.stdout.splitlines())
    assert (answer["text"], answer["call"], answer["conversation"], answer["branch"]) == (
        "First.",
        1,
        1,
        "main",
    )
    assert answer["usage"]["completion_tokens"] == 1
    assert answer["node"].startswith(tree["rows"][0]["hash"])
    assert "there is no /nope" in wrong["error"]
    assert result.returncode == 1
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["-m", "script:none.jsonl"], 1, "no such script"),
        (["-c"], 1, "there is no conversation yet"),
        (["--cid", "9", "-m", "script:x"], 1, "there is no conversation 9"),
        (["-o", "heat", "1"], 2, "there is no option heat; there are"),
        (["-o", "temperature", "hot"], 2, "temperature is a number, not 'hot'"),
        (["-m", "what?"], 2, "is no MODEL"),
        (["-T", "nothing.py", "-m", "script:x"], 1, "no such file: nothing.py"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(arguments: list[str], code: int, sentence: str) -> None:
    result = piped("", *arguments)
    assert result.returncode == code
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_the_model_of_the_config_is_asked(tmp_path: Path) -> None:
    places.home().mkdir(parents=True)
    config = places.home() / "config.toml"
    config.write_text(f"model = '{script(tmp_path, 'From the config.')}'\n")
    assert piped("hi").stdout == "From the config.\n"
    config.write_text("model = 3\n")
    assert "model is a text" in piped("hi").stderr
    config.write_text("model = \n")
    assert "is no TOML" in piped("hi").stderr


def test_a_branch_is_saved(tmp_path: Path) -> None:
    model = script(tmp_path, "It is Paris.")
    text, data = tmp_path / "out.md", tmp_path / "out.json"
    commands = f"France?\n/save {text}\n/save {data}\n/save {data}\n/save {tmp_path}/x.pdf\n"
    result = piped(commands, "-m", model, "-s", "Be brief.")
    assert text.read_text() == "## System\n\nBe brief.\n\n## You\n\nFrance?\n\n## Model\n\nIt is Paris.\n"
    assert json.loads(data.read_text())["messages"][-1] == {"role": "assistant", "content": "It is Paris."}
    assert result.stderr.count("Error") == 2
    assert "is there already" in result.stderr
    assert "ends with none of" in result.stderr
