"""What other names look like to the layer that recognises subjects."""

from __future__ import annotations

from pathlib import Path

import torch

from mindset.facts.keyed_lessons import _Names
from mindset.facts.lessons import cut_at_subject
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
