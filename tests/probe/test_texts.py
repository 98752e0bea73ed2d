from __future__ import annotations

from pathlib import Path

import pytest

from mindset.errors import MissingError
from mindset.probe.texts import SCORED, TRAINING, find_shared, pydoc_topics, scored_texts, training_texts


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "text"
    (folder / "lovecraft").mkdir(parents=True)
    (folder / "tinystories.txt").write_text("é" * 59_999 + "SCORED"[0] + "T" * 10, encoding="utf-8")
    (folder / "lovecraft" / "cool_air.txt").write_bytes(b"cool\r\nair")
    (folder / "lovecraft" / "b.txt").write_text("second")
    (folder / "lovecraft" / "a.txt").write_text("first")
    return tmp_path / "data"


def named(texts: tuple, name: str) -> object:
    return next(text for text in texts if text.name == name)


def test_without_shared_data_the_pydoc_topics_are_scored_and_nothing_is_trained_on() -> None:
    assert [text.name for text in scored_texts()] == ["pydoc_topics"]
    assert training_texts() == []
    assert len(scored_texts()[0].read()) == 60_000


def test_scored_and_training_ranges_do_not_meet() -> None:
    for scored in SCORED:
        for training in TRAINING:
            if scored.file == training.file:
                assert scored.stop is not None
                assert scored.stop <= training.start
    assert named(TRAINING, "lovecraft").without == named(SCORED, "cool_air").file


def test_the_topics_are_joined_in_order_of_their_names() -> None:
    from pydoc_data.topics import topics

    whole = pydoc_topics()
    assert whole.startswith(topics[min(topics)])
    assert whole.endswith(topics[max(topics)])
    rest = named(TRAINING, "pydoc_topics")
    assert not rest.by_default
    assert named(SCORED, "pydoc_topics").read() + rest.read() == whole


def test_ranges_count_characters_and_keep_bytes(data: Path) -> None:
    assert [text.name for text in scored_texts(data)] == ["tinystories", "cool_air", "pydoc_topics"]
    assert named(SCORED, "tinystories").read(data) == "é" * 59_999 + "S"
    assert named(TRAINING, "tinystories").read(data) == "T" * 10
    assert named(SCORED, "cool_air").read(data) == "cool\r\nair"


def test_the_scored_story_is_not_among_those_trained_on(data: Path) -> None:
    assert [text.name for text in training_texts(data)] == ["tinystories", "lovecraft"]
    assert named(TRAINING, "lovecraft").read(data) == "first\nsecond"


def test_a_missing_text_says_where_it_was_looked_for(data: Path) -> None:
    with pytest.raises(MissingError, match=r"wikitext2.*MINDSET_SHARED"):
        named(SCORED, "wikitext2").read(data)
    with pytest.raises(MissingError, match="looked for in None"):
        named(SCORED, "wikitext2").read()


def test_the_variable_names_the_folder_or_the_one_above_and_silences_other_places(data: Path) -> None:
    assert find_shared(environment={"MINDSET_SHARED": str(data)}) == data
    assert find_shared(environment={"MINDSET_SHARED": str(data.parent)}) == data
    assert find_shared(data, environment={"MINDSET_SHARED": str(data / "nowhere")}) is None


def test_without_the_variable_only_the_places_given_are_looked_at(data: Path) -> None:
    assert find_shared(environment={}) is None
    assert find_shared(data / "nowhere", data.parent, environment={}) == data


def test_the_real_texts_are_there(shared: Path) -> None:
    assert {text.name for text in scored_texts(shared)} == {text.name for text in SCORED}
    assert len(named(SCORED, "wikitext2").read(shared)) == 60_000
