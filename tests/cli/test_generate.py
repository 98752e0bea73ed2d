"""`mindset generate`: what it says, and what the log has of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mindset import places
from mindset.calls.listing import Wanted, listed
from mindset.calls.log import CallLog
from mindset.cli.app import app
from mindset.cli.options import Size
from mindset.probe.generate import generate

PROMPT = "Once upon a time"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["generate", *map(str, arguments)])


def test_the_text_of_a_seed_is_what_it_always_was(teacher: Path) -> None:
    for more, how in (([], {}), (["--temperature", 0.8, "--seed", 5], {"temperature": 0.8, "seed": 5})):
        wanted = "".join(generate(teacher, PROMPT, max_tokens=12, **how))
        result = run(teacher, PROMPT, "--max-tokens", 12, *more)
        assert (result.exit_code, result.stdout) == (0, f"{PROMPT}{wanted}\n"), result.stderr
        told = json.loads(run(teacher, PROMPT, "--max-tokens", 12, *more, "--json").stdout)
        assert told == {"prompt": PROMPT, "text": wanted}


def test_it_is_logged_and_so_is_what_fails(teacher: Path) -> None:
    said = json.loads(run(teacher, PROMPT, "--max-tokens", 5, "--seed", 3, "--json").stdout)["text"]
    assert run(teacher, "").exit_code == 2
    log = CallLog.open(f"sqlite:///{places.home() / 'calls.sqlite'}", read_only=True)
    try:
        good, bad = log.call(1), log.call(2)
        assert {line.run_name for line in listed(log, Wanted())} == {"generate"}
    finally:
        log.close()
    assert good.asked.nodes[0].content == {"text": PROMPT}
    assert good.asked.options == {"max_tokens": 5, "temperature": 0.0, "seed": 3}
    assert good.outcome.answer[0].content["parts"] == [{"type": "text", "text": said}]
    assert (good.outcome.status, good.outcome.usage.completion_tokens) == ("ok", 5)
    assert good.outcome.content_hash
    assert good.outcome.local_seconds > 0
    assert bad.outcome.status == "failed"
    assert "prompt is empty" in (bad.outcome.error or "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is resident")
def test_a_memory_may_stay_in_its_files(teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    made = CliRunner().invoke(app, ["convert", str(teacher), "--out", str(folder), "--k", "8"])
    assert made.exit_code == 0, made.output
    wanted = run(folder, PROMPT, "--max-tokens", 9)
    result = run(folder, PROMPT, "--max-tokens", 9, "--ram", "8MB")
    assert (result.exit_code, result.stdout) == (0, wanted.stdout), result.stderr
    refused = run(folder, PROMPT, "--ram", "1kB")
    assert refused.exit_code == 2
    assert "1,000 bytes are too few for this memory" in refused.stderr


@pytest.mark.parametrize(
    ("said", "meant"), [("500MB", 500_000_000), ("1.5 GiB", 3 << 29), ("77", 77), ("2kb", 2000)]
)
def test_sizes_are_written_as_people_write_them(said: str, meant: int) -> None:
    assert Size().convert(said, None, None) == meant


@pytest.mark.parametrize("said", ["", "MB", "-3MB", "3 apples", "0", "0.2b", "1e3"])
def test_what_is_no_size_is_refused(said: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size"):
        Size().convert(said, None, None)
