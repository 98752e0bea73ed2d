from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llm.local_models import tokenizer
from transformers import PreTrainedTokenizerBase

from mindset.errors import CallError, UnsupportedRequestError, UsageError
from mindset.graft.decoding import text_of
from mindset.llm.engine.grammar import Grammars, Guide
from mindset.llm.request import ToolSpec

WORDS = tokenizer()
VOCABULARY, END = 300, 256
"""More logits than tokens, as padded models have."""
GRAMMARS = Grammars(WORDS, VOCABULARY, frozenset([END]))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def drawn(guide: Guide, seed: int, most: int = 400) -> str:
    """What a model says that knows nothing, held to a grammar."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while not guide.is_over and len(ids) < most:
        (allowed,) = GRAMMARS.allowed([guide])
        assert allowed.shape == (VOCABULARY,)
        assert not allowed[END + 1 :].any()
        token = int(torch.multinomial(allowed.float(), 1, generator=generator))
        guide.accept(token)
        if token == END:
            return text_of(WORDS, ids)
        ids.append(token)
    assert guide.is_over
    return text_of(WORDS, ids)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_any_draw_is_a_person(seed: int) -> None:
    said = json.loads(drawn(GRAMMARS.for_schema(PERSON), seed))
    assert set(said) <= {"name", "age", "tags"}
    assert 0 <= said["age"] <= 150
    assert len(said["name"]) <= 5
    assert set(said.get("tags", [])) <= {"a", "b"}


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_any_draw_matches_as_a_whole(seed: int) -> None:
    pattern = r"[0-9]{2}(x|yz)?"
    assert re.fullmatch(pattern, drawn(GRAMMARS.for_regex(pattern), seed))


def test_any_draw_is_a_call_of_a_tool() -> None:
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    tools = [ToolSpec("tag", "", PERSON), ToolSpec('with "quotes"', "", nothing)]
    names = set()
    for seed in range(8):
        text = drawn(GRAMMARS.for_tools(tools, "<", ">"), seed)
        assert text[0] + text[-1] == "<>"
        said = json.loads(text[1:-1])
        names.add(said["name"])
        assert isinstance(said["arguments"], dict)
    assert names == {tool.name for tool in tools}
    assert json.loads(drawn(GRAMMARS.for_tools(tools[:1], "", ""), 1))["name"] == "tag"


def test_several_texts_are_masked_at_once() -> None:
    guides = [GRAMMARS.for_regex("a"), GRAMMARS.for_regex("b"), GRAMMARS.for_regex("[ab]")]
    masks = [mask.nonzero()[:, 0].tolist() for mask in GRAMMARS.allowed(guides)]
    a, b = WORDS("a")["input_ids"][0], WORDS("b")["input_ids"][0]
    assert masks == [[a], [b], sorted([a, b])]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "nonsense"}, "Invalid type: nonsense"),
        ({"not": {"type": "string"}}, "Unimplemented keys"),
        ({"$ref": "http://example.com/x"}, "not present in a registry"),
        ({"x": {1, 2}}, "is no JSON"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_one_sentence(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        GRAMMARS.for_schema(schema)
    assert "\n" not in str(refused.value)


def test_what_cannot_be_said_is_an_error() -> None:
    with pytest.raises(UsageError, match="expression cannot be followed"):
        GRAMMARS.for_regex("(")
    guide = GRAMMARS.for_regex("a")
    with pytest.raises(CallError, match="left its grammar"):
        guide.accept(WORDS("b")["input_ids"][0])


def test_a_tokenizer_that_does_not_spell_its_tokens_is_refused() -> None:
    slow = object.__new__(type("SlowTokenizer", (PreTrainedTokenizerBase,), {}))
    with pytest.raises(UnsupportedRequestError, match="fast version"):
        Grammars(slow, VOCABULARY, frozenset([END])).for_regex("a")
