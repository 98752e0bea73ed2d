from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from mindset import places
from mindset.cli.app import app
from mindset.llm.keys import keys_file, stored_key

KEY = "sk-test-0123456789abcdefghij"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINDSET_CALLS", "MINDSET_REPLAY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, text: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["config", *arguments], input=text)
    assert result.exit_code == code, result.output
    assert KEY not in result.output
    return result


def test_where_everything_is(monkeypatch: pytest.MonkeyPatch) -> None:
    home = places.home()
    lines = run().stdout.splitlines()
    assert f"home      {home}  (not there yet)" in lines
    assert f"calls     {home / 'calls.sqlite'}  (not there yet)" in lines
    assert not home.exists()
    told = json.loads(run("--json").stdout)
    assert told["models"] == str(home / "models")
    assert (told["keys"], told["keys_set"]) == (str(home / "keys.json"), [])
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MINDSET_CALLS", f"postgresql://me:{KEY}@127.0.0.1/calls")
    told = json.loads(run("--json").stdout)
    assert told["calls"] == "postgresql://me:***@127.0.0.1/calls"
    assert told["variables"]["OPENAI_API_KEY"] == "set"
    assert told["variables"]["MINDSET_CALLS"] == told["calls"]
    assert "OPENAI_API_KEY is set" in run().stdout


def test_a_key_is_kept_for_its_owner_alone() -> None:
    assert run("set-key", "openai", text=f"{KEY}\n").stdout == f"the key of openai is in {keys_file()}\n"
    assert stored_key("openai") == KEY
    assert keys_file().stat().st_mode & 0o777 == 0o600
    assert places.home().stat().st_mode & 0o777 == 0o700
    run("set-key", "models.example.org", "--json", text=KEY)
    assert json.loads(run("--json").stdout)["keys_set"] == ["models.example.org", "openai"]
    assert "a key for openai is set" in run().stdout
    keys_file().chmod(0o644)
    run("set-key", "openai", "--remove")
    assert (stored_key("openai"), stored_key("models.example.org")) == (None, KEY)
    assert keys_file().stat().st_mode & 0o777 == 0o600
    assert [path.name for path in places.home().iterdir()] == ["keys.json"]


@pytest.mark.parametrize("text", ["", "\n", "two words", f"{KEY}\n{KEY}", "a\x00b"])
def test_what_is_no_key(text: str) -> None:
    assert "that is no key" in run("set-key", "openai", text=text, code=2).stderr
    assert not keys_file().exists()


def test_a_name_that_names_nothing() -> None:
    assert "names no key" in run("set-key", "../x", text=KEY, code=2).stderr


def test_a_damaged_file_of_keys_is_not_overwritten() -> None:
    places.home().mkdir(parents=True)
    keys_file().write_text(f'{{"openai": "{KEY}"')
    for arguments in (["set-key", "anthropic"], []):
        result = run(*arguments, text=KEY, code=1)
        assert "cannot be read as keys" in result.stderr
    assert keys_file().read_text() == f'{{"openai": "{KEY}"'
