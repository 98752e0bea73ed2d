from __future__ import annotations

import json

import pytest

from mindset import places
from mindset.errors import FormatError
from mindset.llm.anthropic_client import AnthropicClient
from mindset.llm.keys import keys_file, stored_key
from mindset.llm.openai_client import OpenAIClient


def store(**keys: object) -> None:
    keys_file().parent.mkdir(parents=True, exist_ok=True)
    keys_file().write_text(json.dumps(keys))


def test_keys_come_from_the_users_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert stored_key("openai") is None
    store(openai="key of openai", anthropic="key of anthropic", **{"host:8080": "key of host"})
    assert keys_file() == places.home() / "keys.json"
    assert OpenAIClient("openai:m")._key == "key of openai"
    assert OpenAIClient("http://host:8080/v1#m")._key == "key of host"
    assert OpenAIClient("http://host/v1#m")._key is None
    assert OpenAIClient("openai:m", key="given")._key == "given"
    assert AnthropicClient("anthropic:m")._key == "key of anthropic"
    assert AnthropicClient("m", base_url="http://host:8080")._key == "key of host"
    monkeypatch.setenv("OPENAI_API_KEY", "key of the environment")
    assert OpenAIClient("openai:m")._key == "key of the environment"
    assert OpenAIClient("http://host:8080/v1#m")._key == "key of host"


def test_a_damaged_file_is_named_and_its_keys_are_not() -> None:
    store(openai=3)
    with pytest.raises(FormatError, match=r"keys.json holds no keys"):
        stored_key("openai")
    keys_file().write_text('{"openai": "sk-secret"')
    with pytest.raises(FormatError) as raised:
        stored_key("openai")
    assert "sk-secret" not in str(raised.value)
    assert raised.value.__cause__ is None
