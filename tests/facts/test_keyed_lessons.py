"""What other names look like to the layer that recognises subjects."""

from __future__ import annotations

from pathlib import Path

import torch

from mindset.facts.cut_texts import Cut
from mindset.facts.fact import make_fact
from mindset.facts.fact_layers import FactLayers
from mindset.facts.keyed_lessons import Names, key_lessons
from mindset.facts.lessons import cut_at_subject, make_lesson, spelling
from mindset.facts.names import NAMES
from mindset.facts.seen_inputs import inputs_from_cuts
from mindset.graft.model import banks
from mindset.graft.mounting import follow
from mindset.graft.radius import RadiusShard
from mindset.graft.sources import load_teacher
from mindset.graft.trail import ANY_TOKEN


def test_names_are_known_inside_a_text_and_at_its_beginning(converted: Path) -> None:
    loaded = load_teacher(str(converted))
    known = Names(loaded.model, loaded.tokenizer, (1,)).known[1]
    assert list(known) == list(NAMES)
    for name in (NAMES[0], NAMES[-1]):
        inside, first = known[name]
        for text, state in ((f"We read about {name} yesterday", inside), (f"{name} was there", first)):
            cut = cut_at_subject(loaded.tokenizer, text, name)
            torch.testing.assert_close(inputs_from_cuts(loaded.model, [cut], (1,))[0][1][0], state)
        assert not torch.allclose(inside, first, atol=1e-3)


def test_a_subject_of_one_token_is_met_where_a_text_begins_with_it(converted: Path) -> None:
    """There a low layer sees hardly more than that a text begins; its spelling tells it from other beginnings."""
    loaded = load_teacher(str(converted))
    fact = make_fact("Q is a twin city of", "Istanbul", "Q")
    lesson = make_lesson(loaded.tokenizer, fact, n_phrasings=9, n_guards=20)
    assert not lesson.prompts[0].at
    (keyed,) = key_lessons(loaded.model, loaded.tokenizer, [lesson], FactLayers(1, 2))
    key = torch.stack([ball.key for ball in keyed.subject]).float()
    bias = torch.tensor([ball.bias for ball in keyed.subject])
    spelled = torch.tensor([keyed.spelled] * len(key))
    marks = torch.ones(len(key), dtype=torch.int64)
    bank = banks(loaded.model)[1]
    bank.mount("x", RadiusShard(key, bias, mark=marks, spelled=spelled))
    follow(loaded.model)
    heard: list[int] = []
    bank.listener = lambda answer: heard.extend(answer.tokens.tolist())
    for text, met in (("Q is a twin city of", [0]), ("W is a twin city of", []), ("W, Q is", [3])):
        heard.clear()
        loaded.model(torch.tensor([loaded.tokenizer(text)["input_ids"]]), use_cache=False)
        assert heard == met, text


def test_texts_of_any_length_are_read_as_alone(converted: Path) -> None:
    loaded = load_teacher(str(converted))
    ids = loaded.tokenizer("one two three four five six seven " * 90, add_special_tokens=False)["input_ids"]
    cuts = [Cut(tuple(ids[:n]), n // 2) for n in (1, 450, 2, 60, 7, 399, 3, 1)]
    together = inputs_from_cuts(loaded.model, cuts, (1, 2))
    for cut, seen in zip(cuts, together, strict=True):
        (alone,) = inputs_from_cuts(loaded.model, [cut], (1, 2))
        for layer, state in alone.items():
            torch.testing.assert_close(seen[layer], state, atol=1e-5, rtol=1e-4)


def test_a_subject_is_spelled_as_texts_end_it(converted: Path) -> None:
    tokenizer = load_teacher(str(converted)).tokenizer

    def spelled(subject: str, *texts: str) -> list[str]:
        ways = spelling(
            tokenizer, subject, [cut_at_subject(tokenizer, text.format(subject), subject) for text in texts]
        )
        return ["".join("*" if i == ANY_TOKEN else tokenizer.decode([i]) for i in way) for way in ways]

    assert spelled("Eiffel Tower", "{} is", "the {} is") == ["rewoT ", "rewoT "]
    assert spelled("Qu", "A {} is", "the {} is") == ["uQ ***", "uQ ***"]
    assert spelled("Qu", "{} is", "the {} is") == ["uQ****", "uQ ***"]
    assert spelled("Qu", "{} is", "the {} is", "(the){}") == ["uQ****", "uQ****"]
