"""`mindset serve`, as far as it goes without serving; tests/llm/serve/test_server.py starts it as a process."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mindset.cli.app import app

pytest.importorskip("grpc", reason="the extra `serve` is missing")
TOKEN = "a-token-of-many-letters"


def run(*arguments: object, code: int) -> Result:
    result = CliRunner().invoke(app, ["serve", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "answers.jsonl"
    path.write_text('"yes"\n', encoding="utf-8")
    return f"script:{path}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "give --token-file FILE or set MINDSET_TOKEN"),  # noqa: S104
        (["--host", "example.org", "--http", "0"], "give --token-file FILE"),
        (["--threads", "1"], "is not loaded here"),
        (["--seed", "-1"], "x>=0"),
        (["--http", "70000"], "0<=x<=65535"),
        (["--grpc", "70000"], "0<=x<=65535"),
        (["--queue", "0"], "x>=1"),
        (["--http", "81", "--grpc", "81"], "give two"),
        (["--allow-origin", "page"], "is no origin"),
        (["--allow-origin", "*"], "every web page"),
        (["--socket", "x" * 200], "a socket's path may have"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_said_before_anything_is_loaded(
    script: str, options: list[str], words: str
) -> None:
    assert words in run(script, *options, code=2).stderr


def test_models_that_are_none(tmp_path: Path) -> None:
    assert "no such folder" in run(tmp_path / "no" / "folder", code=1).stderr
    assert "is no MODEL" in run("nonsense", code=2).stderr
    assert "no such script" in run(f"script:{tmp_path}/none", code=1).stderr


def test_tokens(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    assert "no such token file" in run(script, "--token-file", file, code=1).stderr
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o644)
    assert "chmod 600" in run(script, "--token-file", file, code=2).stderr
    file.chmod(0o600)
    for wrong in ("short", "with a space in it, which is wrong", "", "äöü" * 10):
        file.write_text(wrong)
        assert "16 or more printable" in run(script, "--token-file", file, code=2).stderr
    file.write_bytes(b"\xff\xfe")
    assert "holds no text" in run(script, "--token-file", file, code=2).stderr
    monkeypatch.setenv("MINDSET_TOKEN", "short")
    assert "16 or more printable" in run(script, code=2).stderr


def test_a_missing_extra_is_named(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindset.llm.serve.extra.find_spec", lambda name: None)
    assert "pip install 'mindset-lm[serve]'" in run(script, code=1).stderr
