from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from mindset.distill.stdlib_text import stdlib_documents
from mindset.distill.text_source import TextSource
from mindset.errors import DataError, UsageError


def test_a_path_may_carry_a_range_of_characters(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("0123456789", encoding="utf-8")
    assert TextSource.parse(f"{book}:3-").documents().texts == ("3456789",)
    assert TextSource.parse(f"{book}:3-5").documents().texts == ("34",)
    assert TextSource.parse(str(book)).documents().texts == ("0123456789",)


def test_a_range_counts_characters_and_leaves_newlines_as_they_are(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes("äö\r\nü🙂z".encode())
    assert TextSource.parse(f"{book}:1-6").documents().texts == ("ö\r\nü🙂",)


@pytest.mark.parametrize("given", ["a.txt:5-", "a.txt:5-9", "folder", "stdlib", "c:stuff.txt"])
def test_what_was_parsed_prints_as_it_was_given(given: str) -> None:
    assert str(TextSource.parse(given)) == given


def test_a_file_whose_name_looks_like_a_range_is_that_file(tmp_path: Path) -> None:
    odd = tmp_path / "odd.txt:1-2"
    odd.write_text("here", encoding="utf-8")
    assert TextSource.parse(str(odd)).documents().texts == ("here",)


@pytest.mark.parametrize("given", ["", "a.txt:5-5", "a.txt:9-3"])
def test_an_empty_name_or_range_is_wrong_usage(given: str) -> None:
    with pytest.raises(UsageError):
        TextSource.parse(given)


def test_a_range_of_a_folder_or_of_the_library_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    for source in (TextSource(str(tmp_path), 5), TextSource("stdlib", 5)):
        with pytest.raises(UsageError, match="single file"):
            source.documents()


def test_a_folder_gives_its_texts_in_order_once_each_and_lists_what_it_left_out(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("two", encoding="utf-8")
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    (tmp_path / "copy.rst").write_text("one", encoding="utf-8")
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "code.py").write_text("not text", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with gzip.open(tmp_path / "c.txt.gz", "wb") as file:
        file.write(b"three")
    documents = TextSource(str(tmp_path)).documents()
    assert documents.texts == ("one", "two", "three")
    assert documents.skipped == (str(tmp_path / "latin.txt"),)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.txt", None, "no such file"),
        ("empty.txt", b"", "no text there"),
        ("blank.txt", b" \n\t", "no text there"),
        ("latin.txt", b"caf\xe9", "not UTF-8"),
        ("zeros.txt", b"ab\0cd", "binary"),
        ("cut.txt.gz", gzip.compress(b"long enough to be cut", mtime=0)[:-6], "damaged gzip"),
        ("no.txt.gz", b"plain", "damaged gzip"),
    ],
)
def test_a_named_file_that_gives_no_text_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        TextSource(str(path)).documents()
    assert name in str(caught.value)


def test_a_range_past_the_end_says_how_much_there_is(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("short", encoding="utf-8")
    with pytest.raises(DataError, match="5 characters"):
        TextSource.parse(f"{book}:60000-").documents()


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    with pytest.raises(DataError, match="1 unreadable"):
        TextSource(str(tmp_path)).documents()


def test_the_standard_library_is_read_without_tests_topics_and_installed_packages(tmp_path: Path) -> None:
    long = "A sentence that is long enough to be worth reading, and one more word."
    for name in (
        "json/__init__.py",
        "pydoc_data/topics.py",
        "json/tests/test_x.py",
        "site-packages/other.py",
        "argparse.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""{name}. {long}"""\ndef f():\n    """Short."""\n', encoding="utf-8")
    (tmp_path / "ast.py").write_text("def broken(:", encoding="utf-8")
    documents = stdlib_documents(tmp_path)
    assert [text.split(". ")[0] for text in documents] == ["argparse.py", "json/__init__.py"]
    assert not any("Short." in text for text in documents)


def test_a_python_without_sources_is_told_to_give_other_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give other text"):
        stdlib_documents(tmp_path)


def test_this_python_gives_at_least_a_megabyte_and_imports_nothing() -> None:
    documents = TextSource("stdlib").documents().texts
    assert sum(map(len, documents)) > 1_000_000
    assert "antigravity" not in sys.modules
