from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from llm.serve.asking import ask

from mindset.llm.events import Alternative, Finished, Started, TextPiece, Token
from mindset.llm.request import Request
from mindset.llm.scripted import ScriptedClient
from mindset.llm.serve.server import Server

PATH = "/v1/completions"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echoes", [False, True])
def test_a_text_continued_by_openais_client(echo: str, stream: bool, echoes: bool) -> None:
    asked: Any = {"model": "echo", "prompt": "Once upon", "max_tokens": 3, "echo": echoes}
    with openai.OpenAI(base_url=f"{echo}/v1", api_key="none") as client:
        if stream:
            chunks = list(
                client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
            )
            text = "".join(one.choices[0].text for one in chunks if one.choices)
            reason, usage = chunks[-2].choices[0].finish_reason, chunks[-1].usage
        else:
            answer = client.completions.create(**asked)
            text, reason, usage = answer.choices[0].text, answer.choices[0].finish_reason, answer.usage
    assert text == ("Once upon" if echoes else "") + "You said: Once"
    assert (reason, usage and usage.completion_tokens) == ("length", 3)


def test_a_prompt_is_raw(served: Callable[..., Server]) -> None:
    client = ScriptedClient(["yes", "yes"], model="tiny")
    url = served(client).urls.http
    assert ask(url, PATH, {"prompt": ["\x00 <|im_start|>"], "regex": "a+", "reads": None}).status == 200
    assert ask(url, PATH, {"prompt": "", "stop": ["\n"], "logprobs": 0}).status == 200
    first, second = client.requests
    assert (first.prompt, first.messages, first.options.regex) == ("\x00 <|im_start|>", (), "a+")
    assert (second.prompt, second.options.stop, second.options.logprobs) == ("", ("\n",), 0)


class Probable(ScriptedClient):
    async def _stream(self, request: Request) -> Any:
        yield Started("tiny")
        for word in ("ab", "c"):
            yield TextPiece(
                word, (Token(word, -0.5, None, (Alternative(word, -0.5), Alternative("z", -3.0))),)
            )
        yield Finished("stop")


def test_probabilities_in_the_older_shape(served: Callable[..., Server]) -> None:
    url = served(Probable(["unused"], model="tiny")).urls.http
    whole = ask(url, PATH, {"prompt": "x", "logprobs": 2}).json["choices"][0]["logprobs"]
    assert (whole["tokens"], whole["token_logprobs"], whole["text_offset"]) == (
        ["ab", "c"],
        [-0.5, -0.5],
        [0, 2],
    )
    assert whole["top_logprobs"] == [{"ab": -0.5, "z": -3.0}, {"c": -0.5, "z": -3.0}]
    pieces = ask(url, PATH, {"prompt": "x", "logprobs": 2, "stream": True}).events
    told = [one["choices"][0]["logprobs"] for one in pieces[:-1]]
    assert [one and one["text_offset"] for one in told] == [None, [0], [2], None]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"prompt": None}, "prompt", "string"),
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": ["a", "b"]}, "prompt", "2 prompts"),
        ({"prompt": [1, 2]}, "prompt.0", "string"),
        ({"prompt": 5}, "prompt", "5 was given"),
        ({"best_of": 3}, "best_of", "one answer"),
        ({"suffix": "end"}, "suffix", "not filled in"),
        ({"echo": True, "logprobs": 1}, "echo", "/v1/forward"),
        ({"logprobs": True}, "logprobs", "integer"),
        ({"reads": 0}, "reads", "greater"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(echo: str, change: dict[str, Any], param: str, words: str) -> None:
    reply = ask(echo, PATH, {"prompt": "x"} | change)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert words in reply.error["message"]


def test_a_prompt_is_needed(echo: str) -> None:
    assert ask(echo, PATH, {}).error["message"] == "prompt: Field required"
