from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mindset.cli.app import app


@pytest.mark.parametrize("arguments", [["models", "--json"], ["models", "list", "--json"]])
def test_json_lists_the_packaged_model(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    known = {model["name"]: model for model in json.loads(result.stdout)}
    assert known["smollm2"]["state"] == "absent"
    assert known["smollm2"]["packaged"] is True


def test_a_person_gets_a_table() -> None:
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0
    assert "smollm2" in result.stdout
    assert "Apache-2.0" in result.stdout


def test_an_unknown_model_lists_the_known() -> None:
    result = CliRunner().invoke(app, ["models", "get", "nonsense"])
    assert result.exit_code == 2
    assert "smollm2" in result.stderr


def test_a_wheel_that_is_none_is_one_sentence(tmp_path_factory: pytest.TempPathFactory) -> None:
    wheel = tmp_path_factory.mktemp("wheel") / "some.whl"
    wheel.write_bytes(b"not a wheel")
    result = CliRunner().invoke(app, ["models", "get", "smollm2", "--wheel", str(wheel)])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "checksum" in result.stderr
