"""`mindset generate`: what it says, and what the log has of it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from mindset import places
from mindset.calls.listing import Wanted, listed
from mindset.calls.log import CallLog
from mindset.cli.app import app
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
