from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from calls.said import asked, call, ok, pieces
from click.testing import CliRunner, Result

from mindset import places
from mindset.calls.call import Asked, Outcome, Retry
from mindset.calls.log import CallLog
from mindset.calls.runs import run as named_run
from mindset.cli.app import app
from mindset.database.engine import writing


@pytest.fixture(autouse=True)
def _nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("MINDSET_CALLS", "MINDSET_REPLAY"):
        monkeypatch.delenv(variable, raising=False)
    yield
    CallLog.close_all()


@pytest.fixture
def log() -> CallLog:
    with named_run("first"):
        made = CallLog.open()
        call(made, "The capital of France?", "It is Paris.", pieces("It", " is", " Paris."))
        call(made, asked("The capital of France?", "It is Paris.", "Sure?", seed=3), "Yes.")
        failed = made.begin(Asked("complete", "openai:gpt-4o-mini", "openai", asked("Hello?").nodes))
        made.finish(
            failed, Outcome("failed", error="the endpoint is gone", retries=(Retry(0.5, "busy", 1.0),))
        )
    return made


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["logs", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def ask(*arguments: object, code: int = 0) -> object:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def test_before_any_call() -> None:
    assert run().stdout == "no calls yet\n"
    assert ask() == []
    assert ask("cost") == []
    assert not places.home().exists()
    for arguments in (
        ["show", 1],
        ["tree", 1],
        ["verify"],
        ["prune", "--keep", 1],
        ["replay", "x", "--", "true"],
    ):
        assert run(*arguments, code=1).stderr == "Error: no call was made yet\n"
    assert run("path").stdout == f"{places.home() / 'calls.sqlite'}\n"


def test_the_list(log: CallLog) -> None:
    lines = run().stdout.splitlines()
    assert [line.strip()[0] for line in lines] == ["3", ">", "!", "2", ">", "<", "1", ">", "<"]
    assert "> The capital of France?" in lines[7]
    assert "! the endpoint is gone" in lines[2]
    assert "first" in lines[0]
    assert [line.strip()[0] for line in run("-q", "paris").stdout.splitlines()] == ["1", ">", "<"]
    assert [one["id"] for one in ask("-n", 2)] == [3, 2]
    assert [one["id"] for one in ask("--status", "failed", "--run", "first")] == [3]
    assert [one["id"] for one in ask("-m", "smollm2", "--since", "1d", "-n", 0)] == [2, 1]
    assert ask("--since", "2999-01-01") == []
    assert run("--since", "2999-01-01").stdout == "no such calls\n"
    assert ask()[2]["answer"][0]["content"]["parts"] == [{"type": "text", "text": "It is Paris."}]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--since", "yesterday"], "'yesterday' is no time"),
        (["--status", "lost"], "'lost'"),
        (["-q", "-"], "names no word"),
        (["-n", "-1"], "-1"),
        (["show", "x"], "'x'"),
        (["prune"], "say what to keep"),
        (["replay", "first"], "COMMAND"),
        (["cost", "--by", "colour"], "'colour'"),
    ],
)
def test_wrong_usage(log: CallLog, arguments: list[str], sentence: str) -> None:
    result = run(*arguments, code=2)
    assert sentence in result.stderr
    assert len(re.findall("^Error: ", result.stderr, re.M)) == 1


def test_one_call(log: CallLog) -> None:
    text = run("show", 1).stdout
    assert "call      1, ok: complete by smollm2 (script)\nrun       first (" in text
    assert "first token 0.50 s, 8.0 pieces/s" in text
    assert "--- user\nThe capital of France?\n--- assistant (answer)\nIt is Paris.\n" in text
    assert 'options   {"seed": 3}' in run("show", 2).stdout
    failed = run("show", 3).stdout
    assert "error     the endpoint is gone\nretried   after 0.50 s, 1.00 s later: busy\n" in failed
    assert ask("show", 1)["pieces"][1] == [0.625, {"event": "text", "text": " is"}]
    assert run("show", 99, code=1).stderr == "Error: there is no call 99 in the log\n"


def test_what_a_model_says_does_not_drive_the_terminal(log: CallLog) -> None:
    made = call(log, "\x1b[31mred", "\x1b]0;title\x07\x1b[2J" + "x" * 500)
    for arguments in ([], ["show", made], ["tree", made]):
        assert "\x1b" not in run(*arguments).stdout
        assert "\x07" not in run(*arguments).stdout
    assert ask("show", made)["asked"][0]["content"]["parts"][0]["text"] == "\x1b[31mred"


def test_a_tree(log: CallLog) -> None:
    call(log, asked("The capital of France?", "It is Paris.", "Really?"), "Really.")
    lines = run("tree", 2).stdout.splitlines()
    assert [line.partition("  ")[2] for line in lines[:2]] == [
        "user: The capital of France?", "assistant: It is Paris.   [call 1]"
    ]  # fmt: skip
    assert [line[:3] for line in lines[2:]] == ["├─ ", "│  ", "└─ ", "   "]
    told = ask("tree", ask("show", 1)["answer"][0]["hash"][:10])
    assert [one["calls"] for one in told] == [[], [1], [], [2], [], [4]]
    assert run("tree", "abcdef", code=1).stderr.startswith("Error: 'abcdef' begins no hash")


def test_costs(log: CallLog) -> None:
    text = run("cost").stdout
    assert re.search(r"smollm2 +2 +0 ", text)
    assert re.search(r"all +3 +1 ", text)
    assert [one["name"] for one in ask("cost", "--by", "run")] == ["first"]
    assert re.search(r"first +\d{8}-\d{6}-\w{6} +3 ", run("cost", "--by", "run").stdout.replace("\n", " "))
    assert len(ask("cost", "--by", "day", "--since", "7d")) == 1
    unknown = log.begin(Asked("complete", "https://x.example/v1#m", "openai"))
    log.finish(unknown, Outcome("ok"))
    assert "1 calls are not in the cost" in run("cost").stdout


def test_verify(log: CallLog) -> None:
    assert run("verify").stdout == "3 calls, 5 nodes, 0 problems\n"
    node = ask("show", 3)["asked"][0]["hash"]
    log.tree.delete(node)
    assert run("verify").stdout.splitlines()[0] == f"node {node} was deleted"
    with writing(log.engine) as connection:
        connection.execute(sa.text("UPDATE calls SET options = '{}' WHERE id = 2"))
    assert "call 2: what it asked is not" in run("verify", code=1).stdout
    assert len(ask("verify", code=1)["problems"]) == 1


def test_prune(log: CallLog) -> None:
    assert run("prune", "--keep", 1, "--dry-run").stdout == "2 calls would go\n"
    assert ask("prune", "--older-than", "30d")["calls"] == 0
    assert run("prune", "--keep", 1).stdout.startswith("2 calls, 4 nodes, 0 runs")
    assert [one["id"] for one in ask()] == [3]
    assert run("verify").stdout == "1 calls, 1 nodes, 0 problems\n"


def test_a_call_of_a_killed_process_is_failed_when_it_is_looked_at(log: CallLog) -> None:
    made = log.begin(asked("and then?"))
    with writing(log.engine) as connection:
        connection.execute(sa.text("UPDATE processes SET began = 'long ago'"))
    CallLog.close_all()
    assert [one["id"] for one in ask("--status", "failed", "-n", 1)] == [made]


SCRIPT = """
import asyncio, sys
from mindset.calls.runs import run
from mindset.llm.messages import user
from mindset.llm.scripted import ScriptedClient

async def main():
    async with ScriptedClient([f"It is {word}." for word in sys.argv[2:]]) as client:
        for n in range(2):
            answer = await client.chat([user(f"{sys.argv[1]} {n}?")])
            print(answer.text, flush=True)

with run("script"):
    asyncio.run(main())
"""


def test_a_recorded_run_answers_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"MINDSET_HOME": str(places.home())}

    def mindset(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mindset", "logs", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    first = subprocess.run(
        [sys.executable, script, "who", "me", "you"], capture_output=True, text=True, env=environment
    )
    assert (first.returncode, first.stdout) == (0, "It is me.\nIt is you.\n"), first.stderr
    again = mindset("replay", "script", "--", sys.executable, str(script), "who", "wrong", "answers")
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert re.search(r"2 of the 2 calls of \S+ answered again", again.stderr)
    told = json.loads(
        mindset("replay", "--json", "script", "--", sys.executable, str(script), "who", "-x", "y").stdout
    )
    assert (told["stdout"], told["answered"], told["exit_code"]) == (first.stdout, 2, 0)
    other = mindset("replay", "script", "--", sys.executable, str(script), "where", "here", "there")
    assert other.returncode == 1
    assert "-who 0?\n+where 0?\n" in other.stderr
    assert other.stdout == ""
    replays = [line["run"]["replays"] for line in json.loads(mindset("--json", "-n", "0").stdout)]
    assert replays.count(told["run"]) == 5
    assert replays.count(None) == 2
    ended = mindset("replay", "script", "--", sys.executable, "-c", "import os; os.kill(os.getpid(), 15)")
    assert ended.returncode == 143
    missing = mindset("replay", "script", "--", "no-such-command")
    assert (missing.returncode, missing.stderr) == (
        1, "Error: no-such-command cannot be run: No such file or directory\n"
    )  # fmt: skip
    nobody = mindset("replay", "nothing", "--", "true")
    assert (nobody.returncode, nobody.stderr.count("\n")) == (1, 1)
    assert "there is no run 'nothing'" in nobody.stderr


def test_the_log_of_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDSET_CALLS", f"sqlite:///{tmp_path}/x.sqlite")
    assert run("path").stdout == f"{tmp_path}/x.sqlite\n"
    assert run().stdout == "no calls yet\n"
    call(CallLog.open(), "a", "b")
    assert len(ask()) == 1
    monkeypatch.setenv("MINDSET_CALLS", "postgresql://me:secret@127.0.0.1:1/none")
    assert run("path").stdout == "postgresql://me:***@127.0.0.1:1/none\n"
    assert "no server answers there" in run(code=1).stderr
    monkeypatch.setenv("MINDSET_CALLS", "nonsense")
    assert "is no database URL" in run(code=2).stderr


def test_a_damaged_log_is_one_sentence(log: CallLog) -> None:
    CallLog.close_all()
    (places.home() / "calls.sqlite").write_bytes(b"nonsense" * 1000)
    for arguments in ([], ["show", 1], ["verify"], ["cost"], ["prune", "--keep", 1]):
        result = run(*arguments, code=1)
        assert result.stderr.startswith(f"Error: {places.home() / 'calls.sqlite'}: damaged")
        assert result.stderr.count("\n") == 1


def test_an_answer_that_is_still_coming(log: CallLog) -> None:
    made = log.begin(asked("and?"))
    log.note(made, pieces("so "))
    assert run("-n", 1).stdout.splitlines()[0].split()[3:5] == ["running", "smollm2"]
    assert ", and runs" in run("show", made).stdout
    log.finish(made, ok("so what"))
    assert "1.50 s" in run("show", made).stdout
