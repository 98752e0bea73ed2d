from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from llm.engine.texts import words
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mindset.graft.decoding import Detokenizer
from mindset.llm.engine.speech import Speech
from mindset.llm.events import Token


def byte_level() -> PreTrainedTokenizerFast:
    """Every byte a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


BYTES = byte_level()


def first_complete(text: str, stops: list[str]) -> int | None:
    """Where a text ends: before the stop that is complete first."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return min(starts)
    return None


def said(ids: list[int], stops: list[str], told: bool = False) -> tuple[str, list[int], bool, list[str]]:
    """Text, tokens, whether it stopped, and the pieces."""
    speech = Speech(Detokenizer(BYTES), stops)
    pieces = []
    for number, token in enumerate(ids):
        pieces.append(speech.push(token, Token(str(number), id=token) if told else None))
        if speech.has_stopped():
            break
    pieces.append(speech.end())
    real = [piece for piece in pieces if piece is not None]
    tokens = [token.id for piece in real for token in piece.tokens]
    return "".join(piece.text for piece in real), tokens, speech.has_stopped(), [piece.text for piece in real]


@given(
    text=st.text(alphabet="ab\nö🙂", max_size=24),
    stops=st.lists(st.text(alphabet="ab\nö", min_size=1, max_size=4), max_size=3),
)
def test_a_text_ends_before_the_first_stop_that_is_complete(text: str, stops: list[str]) -> None:
    ids = BYTES(text)["input_ids"]
    whole, tokens, stopped, pieces = said(ids, stops, told=True)
    end = first_complete(text, stops)
    assert stopped == (end is not None)
    assert whole == text[:end]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert tokens == ids[: len(tokens)]
    if end is None:
        assert tokens == ids


@given(text=st.text(alphabet="ab", min_size=1, max_size=12), cuts=st.sets(st.integers(1, 11)))
def test_how_text_falls_into_tokens_does_not_matter(text: str, cuts: set[int]) -> None:
    stops = ["aba", "bb", "b"][: 1 + len(cuts) % 3]
    pieces = {text[i:j] for i in range(12) for j in range(i + 1, 13)} - {""}
    vocabulary = {piece: n for n, piece in enumerate(sorted(pieces))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=min(vocabulary)))
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    speech, found = Speech(Detokenizer(tokenizer), stops), ""
    for start, stop in pairwise(bounds):
        piece = speech.push(vocabulary[text[start:stop]])
        found += piece.text if piece else ""
        if speech.has_stopped():
            break
    last = speech.end()
    assert found + (last.text if last else "") == text[: first_complete(text, stops)]


def test_what_may_become_a_stop_is_held_back() -> None:
    speech = Speech(Detokenizer(words()), ["xyz"])
    ids = {letter: words().convert_tokens_to_ids(letter) for letter in "abxyz"}
    told = [speech.push(ids[letter]) for letter in "axyaxyz"]
    assert [piece and piece.text for piece in told] == ["a", None, None, "xya", None, None, None]
    assert speech.has_stopped()
    assert speech.end() is None


def test_half_a_character_is_told_at_the_end() -> None:
    ids = BYTES("a🙂")["input_ids"]
    text, _, stopped, _ = said(ids[:-1], ["b"])
    assert (text, stopped) == ("a\N{REPLACEMENT CHARACTER}", False)


def test_tokens_come_with_their_text() -> None:
    speech = Speech(Detokenizer(BYTES), ["stop"])
    ids = BYTES("so 🙂")["input_ids"]
    pieces = [speech.push(one, Token("", id=one)) for one in ids]
    last = speech.end()
    assert last is None
    assert [(piece.text, len(piece.tokens)) for piece in pieces if piece] == [("so", 2), (" ", 1), ("🙂", 4)]
