from __future__ import annotations

import asyncio

import numpy as np
import openai
import pytest
from llm.serve.asking import ask

from benchmarks.serving_echo import EchoClient

PATH = "/v1/embeddings"


def test_vectors_are_the_clients_own(echo: str) -> None:
    texts = ["one", "one two", "héé"]
    with openai.OpenAI(base_url=f"{echo}/v1", api_key="none") as client:
        told = client.embeddings.create(model="echo", input=texts)  # asks for base64
        plain = client.embeddings.create(model="echo", input=texts[1], encoding_format="float")
    own = asyncio.run(EchoClient().embed(texts)).vectors
    np.testing.assert_array_equal(np.array([one.embedding for one in told.data], np.float32), own)
    np.testing.assert_array_equal(np.array(plain.data[0].embedding, np.float32), own[1])
    assert [one.index for one in told.data] == [0, 1, 2]
    assert told.usage.prompt_tokens == told.usage.total_tokens > 0
    assert ask(echo, PATH, {"input": "x", "dimensions": own.shape[1]}).status == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": []}, "at least 1"),
        ({"input": ""}, "empty text"),
        ({"input": ["a", ""]}, "empty text"),
        ({"input": [1, 2]}, "string"),
        ({"input": None}, "string"),
        ({"input": "a", "dimensions": 3}, "this model has 64"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(echo: str, body: dict[str, object], words: str) -> None:
    reply = ask(echo, PATH, body)
    assert reply.status == 400
    assert words in reply.error["message"]
