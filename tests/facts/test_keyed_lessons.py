"""What other names look like to the layer that recognises subjects."""

from __future__ import annotations

from pathlib import Path

import torch

from mindset.facts.cut_texts import Cut
from mindset.facts.fact import make_fact
from mindset.facts.keyed_lessons import FactLayers, _Names, key_lessons
from mindset.facts.lessons import cut_at_subject, make_lesson
from mindset.facts.names import NAMES
from mindset.facts.seen_inputs import inputs_from_cuts
from mindset.graft.sources import load_teacher


def test_names_are_known_inside_a_text_and_at_its_beginning(converted: Path) -> None:
    loaded = load_teacher(str(converted))
    known = _Names(loaded.model, loaded.tokenizer, 1).known
    assert list(known) == list(NAMES)
    for name in (NAMES[0], NAMES[-1]):
        inside, first = known[name]
        for text, state in ((f"We read about {name} yesterday", inside), (f"{name} was there", first)):
            cut = cut_at_subject(loaded.tokenizer, text, name)
            torch.testing.assert_close(inputs_from_cuts(loaded.model, [cut], (1,))[0][1][0], state)
        assert not torch.allclose(inside, first, atol=1e-3)


def test_what_a_text_begins_with_is_no_subject(converted: Path) -> None:
    """A subject of one token at the beginning looks like anything there; inside a text it is met all the same."""
    loaded = load_teacher(str(converted))
    model, tokenizer = loaded.model, loaded.tokenizer
    fact = make_fact("Q is a twin city of", "Istanbul", "Q")
    lesson = make_lesson(tokenizer, fact, n_phrasings=9, n_guards=20)
    (keyed,) = key_lessons(model, tokenizer, [lesson], FactLayers(1, 2))
    names = _Names(model, tokenizer, 1)
    begun = torch.stack([seen for word, seen in names.beginnings if word != "q"])
    assert keyed.subject
    assert all((ball.margins(begun) <= 0).all() for ball in keyed.subject)
    assert not lesson.prompts[0].at
    inside = [cut for cut in (*lesson.prompts, *lesson.guards) if cut.at]
    states = torch.stack([one[1][0] for one in inputs_from_cuts(model, inside, (1,))])
    met = torch.stack([ball.margins(states) > 0 for ball in keyed.subject]).any(dim=0)
    assert met.any()


def test_texts_of_any_length_are_read_as_alone(converted: Path) -> None:
    loaded = load_teacher(str(converted))
    ids = loaded.tokenizer("one two three four five six seven " * 90, add_special_tokens=False)["input_ids"]
    cuts = [Cut(tuple(ids[:n]), n // 2) for n in (1, 450, 2, 60, 7, 399, 3, 1)]
    together = inputs_from_cuts(loaded.model, cuts, (1, 2))
    for cut, seen in zip(cuts, together, strict=True):
        (alone,) = inputs_from_cuts(loaded.model, [cut], (1, 2))
        for layer, state in alone.items():
            torch.testing.assert_close(seen[layer], state, atol=1e-5, rtol=1e-4)
