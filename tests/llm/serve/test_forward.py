from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest
from llm.serve.asking import ask
from safetensors.numpy import load

from benchmarks.serving_echo import EchoClient
from mindset.llm.request import ForwardRequest

PATH = "/v1/forward"
ALL = {"logits": True, "hidden_states": True, "attention": True, "reads": 2}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("text", [{"prompt": "hé"}, {"ids": [104, 195, 169]}], ids=str)
def test_the_inside_is_the_clients_own_to_the_bit(echo: str, text: dict[str, Any], last: bool) -> None:
    own = asyncio.run(EchoClient().forward(ForwardRequest(ids=(104, 195, 169), **ALL, last=last)))
    told = ask(echo, PATH, text | ALL | {"last": last}).json
    packed = ask(echo, PATH, text | ALL | {"last": last}, headers={"Accept": "application/octet-stream"})
    assert packed.headers["content-type"] == "application/octet-stream"
    unpacked = load(packed.body)
    for name in ("logits", "hidden_states", "attention"):
        array = told["arrays"][name]
        assert array["dtype"] == "<f4"
        read = np.frombuffer(base64.b64decode(array["data"]), array["dtype"]).reshape(array["shape"])
        np.testing.assert_array_equal(read, getattr(own, name))
        np.testing.assert_array_equal(unpacked[name], getattr(own, name))
    size = int.from_bytes(packed.body[:8], "little")
    rest = json.loads(json.loads(packed.body[8 : 8 + size])["__metadata__"]["mindset"])
    assert {name: value for name, value in told.items() if name != "arrays"} == rest
    assert rest["ids"] == [104, 195, 169]
    assert rest["content_hash"] == "e" * 40
    assert rest["reads"][-1] == [
        {"layer": 0, "slot": 169, "influence": 0.5, "overlay": None},
        {"layer": 1, "slot": 7, "influence": -0.25, "overlay": "facts"},
    ]
    assert len(rest["reads"]) == (1 if last else 3)


def test_only_what_was_asked_for_is_sent(echo: str) -> None:
    assert list(ask(echo, PATH, {"prompt": "x"}).json["arrays"]) == ["logits"]
    assert ask(echo, PATH, {"prompt": "x", "logits": False}).json["arrays"] == {}
    none = ask(echo, PATH, {"prompt": "x", "logits": False}, headers={"Accept": "application/octet-stream"})
    assert load(none.body) == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "prompt or over ids"),
        ({"prompt": "a", "ids": [1]}, "prompt or over ids"),
        ({"ids": []}, "at least 1"),
        ({"ids": [-1]}, "greater"),
        ({"ids": [2**31]}, "less"),
        ({"ids": [1.5]}, "integer"),
        ({"ids": [999]}, "0 to 255"),
        ({"prompt": "a", "reads": 0}, "greater"),
        ({"prompt": "a", "attention": "yes"}, "boolean"),
    ],
    ids=str,
)
def test_what_cannot_be_meant(echo: str, body: dict[str, Any], words: str) -> None:
    reply = ask(echo, PATH, body)
    assert reply.status == 400
    assert words in reply.error["message"]
