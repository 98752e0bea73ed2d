from __future__ import annotations

import pytest
import torch
from graft.tiny import tiny_model, tiny_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mindset.errors import UsageError
from mindset.graft.decoding import (
    Detokenizer,
    checked_length,
    context_length,
    decoded_pieces,
    draw,
    end_tokens,
    spelled,
    text_of,
)


def byte_level() -> PreTrainedTokenizerFast:
    """Every byte a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def sentence_piece() -> PreTrainedTokenizerFast:
    """Words with the space before them, as Llama's, whose decoder drops the one that begins a text."""
    vocabulary = {"<unk>": 0, "▁a": 1, "▁b": 2, "c": 3, "▁": 4}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


BYTES, WORDS = byte_level(), sentence_piece()


@given(ids=st.lists(st.integers(0, 255), max_size=40), cut=st.integers(0, 12))
def test_pieces_join_to_the_text_whatever_the_bytes(ids: list[int], cut: int) -> None:
    before, after = ids[:cut], ids[cut:]
    pieces = list(decoded_pieces(BYTES, before, after))
    assert all(pieces)
    whole = text_of(BYTES, ids)
    if "\N{REPLACEMENT CHARACTER}" not in whole:
        assert "".join(pieces) == whole[len(text_of(BYTES, before)) :]


@given(text=st.text(min_size=1, max_size=20))
def test_no_half_character_is_told(text: str) -> None:
    words = Detokenizer(BYTES)
    pieces = [words.push(token) for token in BYTES(text)["input_ids"]]
    assert "".join(pieces) == text
    assert words.rest() == ""
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces) or "\ufffd" in text


@given(ids=st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=30), cut=st.integers(1, 29))
def test_spaces_before_words_are_kept_behind_a_prompt(ids: list[int], cut: int) -> None:
    before, after = ids[:cut], ids[cut:]
    said = "".join(decoded_pieces(WORDS, before, after))
    assert text_of(WORDS, before) + said == text_of(WORDS, ids)


def test_a_token_by_itself() -> None:
    assert [spelled(WORDS, token) for token in (1, 3)] == [" a", "c"]
    first = BYTES("ö")["input_ids"][0]
    assert spelled(BYTES, first) == BYTES.convert_ids_to_tokens(first)


def test_where_a_text_ends() -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    assert context_length(model) == 128
    for named, ends in ((5, {5}), ([5, 7], {5, 7}), (None, {2})):
        model.generation_config.eos_token_id = named
        assert end_tokens(model, tokenizer) == ends
    tokenizer.eos_token = None
    assert end_tokens(model, tokenizer) == frozenset()


def test_prompts_leave_room_for_an_answer() -> None:
    checked_length([1] * 9, 10)
    with pytest.raises(UsageError, match="prompt is empty"):
        checked_length([], 10)
    with pytest.raises(UsageError, match="10 tokens, but the model reads 10"):
        checked_length([1] * 10, 10)


def test_a_draw() -> None:
    logits, generator = torch.tensor([0.0, 5.0, 1.0]), torch.Generator().manual_seed(0)
    assert draw(logits, 0.0, generator) == 1
    assert {draw(logits, 100.0, generator) for _ in range(60)} == {0, 1, 2}
