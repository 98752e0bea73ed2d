from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from mindset.distill import corpus as corpus_module
from mindset.distill.corpus import load_tokens, read_corpus, save_tokens, tokenizer_digest
from mindset.distill.text_source import TextSource
from mindset.errors import DataError


@pytest.fixture
def book(tmp_path: Path, sentences: list[str]) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("\n".join(sentences * 5), encoding="utf-8")
    return path


def test_documents_are_joined_with_eos(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("Once upon", encoding="utf-8")
    (texts / "b.txt").write_text("a time", encoding="utf-8")
    corpus = read_corpus(TextSource(str(texts)), tokenizer, tmp_path / "cache")
    assert tokenizer.decode(corpus.tokens.tolist()) == "Once upon</s>a time</s>"
    assert (corpus.n_documents, corpus.n_characters) == (2, 15)
    assert corpus.tokens.dtype == np.uint32


def test_the_same_text_is_tokenised_once(
    tmp_path: Path, book: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_corpus(TextSource(str(book)), tokenizer, tmp_path / "cache")
    moved = book.rename(tmp_path / "moved.txt")
    monkeypatch.setattr(corpus_module, "_tokenise", lambda *_: pytest.fail("tokenised again"))
    again = read_corpus(TextSource(str(moved)), tokenizer, tmp_path / "cache")
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.tokens, first.tokens)


def test_another_range_text_or_tokenizer_is_another_corpus(
    tmp_path: Path, book: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    cache = tmp_path / "cache"
    whole = read_corpus(TextSource(str(book)), tokenizer, cache)
    part = read_corpus(TextSource(str(book), 20), tokenizer, cache)
    no_eos = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>")
    other = read_corpus(TextSource(str(book)), no_eos, cache)
    assert len({whole.digest, part.digest, other.digest}) == 3
    assert len(other.tokens) == len(whole.tokens) - 1


def test_padding_a_batch_does_not_change_what_a_tokenizer_is(tokenizer: PreTrainedTokenizerFast) -> None:
    own = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>", pad_token="</s>"
    )
    before = tokenizer_digest(own)
    own(["a", "a longer one"], padding=True, truncation=True, max_length=4)
    assert tokenizer_digest(own) == before


def test_a_damaged_cache_is_made_anew(tmp_path: Path, book: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    cache = tmp_path / "cache"
    first = read_corpus(TextSource(str(book)), tokenizer, cache)
    tokens = np.array(first.tokens)
    (file,) = cache.glob("*.npy")
    file.write_bytes(file.read_bytes()[:-7])
    assert load_tokens(file) is None
    np.testing.assert_array_equal(read_corpus(TextSource(str(book)), tokenizer, cache).tokens, tokens)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(file: object, *_: object, **__: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_tokens(tmp_path / "x.npy", np.arange(3))
    assert list(tmp_path.iterdir()) == []


def test_a_long_document_is_cut_at_lines_and_loses_nothing(
    tmp_path: Path, book: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "_LONGEST_PIECE", 50)
    corpus = read_corpus(TextSource(str(book)), tokenizer, tmp_path / "cache")
    assert tokenizer.decode(corpus.tokens.tolist()) == book.read_text(encoding="utf-8") + "</s>"


def test_a_missing_file_is_a_data_error(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_corpus(TextSource(str(tmp_path / "none.txt")), tokenizer, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
