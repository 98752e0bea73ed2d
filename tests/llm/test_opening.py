from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindset.calls.log import CallLog
from mindset.errors import DataError, MissingError, UsageError
from mindset.llm.anthropic_client import AnthropicClient
from mindset.llm.budget import Budget
from mindset.llm.openai_client import OpenAIClient
from mindset.llm.opening import open_client
from mindset.llm.policy import Policy
from mindset.llm.replaying import ReplayClient
from mindset.llm.scripted import ScriptedClient

Go = Callable[[Any], Any]


def test_every_form_of_a_model_has_its_client(tmp_path: Path, log: CallLog) -> None:
    script = tmp_path / "answers.jsonl"
    script.write_text('"yes"\n')
    for model, kind in (
        ("openai:gpt-5-mini", OpenAIClient),
        ("http://localhost:8080/v1#any", OpenAIClient),
        ("https://host/v1#org/name", OpenAIClient),
        ("anthropic:claude", AnthropicClient),
        (f"script:{script}", ScriptedClient),
        ("replay:run", ReplayClient),
    ):
        client = open_client(model, log=log)
        assert type(client) is kind
        assert client.model == model


def test_settings_go_where_they_belong(log: CallLog) -> None:
    budget = Budget(tokens=1)
    client = open_client(
        "openai:m", timeout=30, attempts=2, log=log, budget=budget, api="responses", policy=Policy(backoff=3)
    )
    assert client.policy == Policy(timeout=30, attempts=2, backoff=3)
    with pytest.raises(UsageError, match=r"OpenAIClient has no setting device; it has api, .*timeout"):
        open_client("openai:m", device="cpu")


def test_what_is_no_model_says_so(tmp_path: Path) -> None:
    for model, kind in (
        ("nothing like a model", UsageError),
        ("openai:", UsageError),
        ("script:" + str(tmp_path / "missing.jsonl"), MissingError),
        ("./missing", MissingError),
    ):
        with pytest.raises(kind):
            open_client(model)


def test_a_script_says_line_by_line_what_it_says(tmp_path: Path, log: CallLog, go: Go) -> None:
    script = tmp_path / "answers.jsonl"
    script.write_text(
        '# greetings\n"Hello."\n\n'
        '{"text": "Hm.", "reasoning": "I see", "usage": {"prompt_tokens": 3, "completion_tokens": 4}, "delay": 0.01}\n'
        '{"tool_calls": [{"name": "add", "arguments": {"a": 1}}, {"id": "x", "name": "add", "arguments": "{"}]}\n'
        '{"text": "too long to say", "finish_reason": "length"}\n'
    )

    async def scenario() -> list[Any]:
        async with open_client(f"script:{script}", log=log) as client:
            return [await client.chat("Hi") for _ in range(4)]

    hello, hm, calls, long = go(scenario())
    assert hello.text == "Hello."
    assert (hm.usage.prompt_tokens, hm.usage.completion_tokens, hm.text) == (3, 4, "Hm.")
    assert [(call.id, call.name, call.arguments) for call in calls.message.tool_calls] == [
        ("call_0", "add", '{"a": 1}'),
        ("x", "add", "{"),
    ]
    assert (calls.finish_reason, long.finish_reason) == ("tool_calls", "length")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2 of .* is no answer"),
        ("3", "int is neither text nor an object"),
        ('{"txt": "x"}', "there is no txt; there are delay, "),
        ('{"text": 3}', "text is 3, which is of the wrong kind"),
        ('{"tool_calls": [{}]}', "line 2"),
        ('{"finish_reason": "tired"}', "finish_reason is one of stop"),
        ('{"usage": {"tokens": 3}}', "line 2"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    script = tmp_path / "answers.jsonl"
    script.write_text(f'"fine"\n{line}\n')
    with pytest.raises(DataError, match=sentence):
        open_client(f"script:{script}")


def test_scripted_answers_keep_to_the_request(log: CallLog, go: Go) -> None:
    client = ScriptedClient(lambda _: "one two three. four", log=log)
    assert go(client.chat("Hi", max_tokens=2)).text == "one two"
    assert go(client.chat("Hi", max_tokens=2)).finish_reason == "length"
    assert go(client.chat("Hi", stop=". ")).text == "one two three"
    assert [token.text for token in go(client.chat("Hi", logprobs=0)).tokens] == [
        "one",
        " two",
        " three.",
        " four",
    ]
    with pytest.raises(UsageError, match="a list of it"):
        ScriptedClient("one answer")


def test_in_a_replay_a_model_of_this_process_is_not_even_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from mindset.llm.opening import open_client; client = open_client('smollm2', threads=2); "
        "print(type(client).__name__, client.model, 'torch' in sys.modules)"
    )
    environment = os.environ | {"MINDSET_REPLAY": "tuesday", "MINDSET_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["StandIn", "smollm2", "False"], done.stderr
