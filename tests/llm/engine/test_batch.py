from __future__ import annotations

import pytest
from llm.engine.texts import Told, alone, batch_of, model_of, row_of, spelled

from mindset.llm.request import Options

FAMILIES = ["llama", "gpt2", "student", "mistral", "qwen3", "gemma2", "gemma3_text", "phi", "gpt_neox", "gptj", "opt", "bloom", "falcon"]


@pytest.mark.parametrize("family", FAMILIES)
def test_many_at_once_say_what_each_says_alone(family: str) -> None:
    model = model_of(family)
    asked = [([5 + n, 7, 9, 3 + n][: 2 + n % 3], Options(max_tokens=6 + n, temperature=1.0, seed=n)) for n in range(7)]
    told = [Told() for _ in asked]
    batch = batch_of(model, rows=4, piece=3, lone_piece=12)
    for (ids, options), one in zip(asked, told, strict=True):
        batch.add(row_of(ids, options, one))
    while batch.step():
        pass
    assert [one.text for one in told] == [spelled(alone(model, ids, options)) for ids, options in asked]
