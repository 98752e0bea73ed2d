from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from mindset.errors import DataError, UsageError
from mindset.probe.token_bytes import bytes_by_offsets, bytes_by_spelling, tokens_and_bytes

KINDS = [
    "byte level",
    "byte level, NFC",
    "byte level, prefix space",
    "byte fallback",
    "unknown tokens",
    "offsets without spaces",
]
TEXTS = st.text(
    st.sampled_from(" aonce\n\t.▁öÖ詩🙂e\u0301\u00a0<0xA>") | st.characters(codec="utf-8"),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_byte_is_counted_once(
    tokenizers: dict[str, PreTrainedTokenizerFast], kind: str, text: str
) -> None:
    try:
        ids, n_bytes = tokens_and_bytes(text, tokenizers[kind])
    except DataError:
        assert tokenizers[kind](text, add_special_tokens=False)["input_ids"] == []
        return
    assert len(ids) == len(n_bytes)
    assert n_bytes.min() >= 0
    assert n_bytes.sum() == len(text.encode())


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
@given(text=TEXTS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_without_normalisation_offsets_agree_with_the_spelling_at_every_character_boundary(
    tokenizers: dict[str, PreTrainedTokenizerFast], kind: str, text: str
) -> None:
    encoded = tokenizers[kind](text, add_special_tokens=False, return_offsets_mapping=True)
    by_spelling = bytes_by_spelling(tokenizers[kind].convert_ids_to_tokens(encoded["input_ids"]), text)
    if by_spelling is None:  # a text with a literal word-start mark spells a space
        assert "▁" in text
        return
    by_offsets = bytes_by_offsets(encoded["offset_mapping"], text)
    boundaries = set(np.cumsum([0, *(len(character.encode()) for character in text)]).tolist())
    spelled_ends, offset_ends = np.cumsum(by_spelling), np.cumsum(by_offsets)
    at_boundary = np.array([int(end) in boundaries for end in spelled_ends])
    assert np.array_equal(spelled_ends[at_boundary], offset_ends[at_boundary])


def test_a_character_split_over_tokens_is_split_to_the_byte() -> None:
    assert bytes_by_spelling(["<0xE8>", "<0xA9>", "<0xA9>", "▁a"], "詩 a").tolist() == [1, 1, 1, 2]
    assert bytes_by_offsets([(0, 1), (0, 1), (0, 1), (1, 3)], "詩 a").tolist() == [0, 0, 3, 2]


def test_spaces_left_out_of_offsets_belong_to_the_next_token_and_the_rest_to_the_last() -> None:
    assert bytes_by_offsets([(1, 3), (4, 6)], " ab cd \n").tolist() == [3, 5]


def test_the_space_that_the_tokenizer_put_before_the_text_is_not_counted() -> None:
    assert bytes_by_spelling(["▁on", "ce"], "once").tolist() == [2, 2]
    assert bytes_by_spelling(["▁", "▁on", "ce"], " once").tolist() == [0, 3, 2]


def test_offsets_of_a_token_for_a_space_that_is_not_in_the_text_claim_nothing() -> None:
    assert bytes_by_offsets([(0, 1), (0, 4), (4, 4), (4, 6)], "oncéup").tolist() == [0, 5, 0, 2]


def test_a_text_without_utf8_bytes_is_refused(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    with pytest.raises(DataError, match="surrogate"):
        tokens_and_bytes("\ud800", tokenizers["byte level"])


def test_special_tokens_are_not_added(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers["byte level"].backend_tokenizer, bos_token="<s>", add_bos_token=True
    )
    ids, _ = tokens_and_bytes("Once upon", tokenizer)
    assert tokenizer.bos_token_id not in ids
    assert tokenizer.decode(ids) == "Once upon"


def test_a_text_that_leaves_no_token_is_refused(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    with pytest.raises(DataError, match="no token"):
        tokens_and_bytes("", tokenizers["byte level"])


def test_a_slow_tokenizer_that_does_not_spell_is_refused() -> None:
    class Words(PreTrainedTokenizer):
        @property
        def vocab_size(self) -> int:
            return 2

        def get_vocab(self) -> dict[str, int]:
            return {"WORD": 0, "?": 1}

        def _tokenize(self, text: str, **kwargs: object) -> list[str]:
            return ["WORD" for _ in text.split()]

        def _convert_token_to_id(self, token: str) -> int:
            return self.get_vocab().get(token, 1)

        def _convert_id_to_token(self, index: int) -> str:
            return ["WORD", "?"][index]

    with pytest.raises(UsageError, match="fast version"):
        tokens_and_bytes("two words", Words())
