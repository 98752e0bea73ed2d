from __future__ import annotations

import numpy as np
import pytest
import torch
from graft.tiny import tiny_model

from mindset.errors import UnsupportedRequestError
from mindset.llm.engine.insides import mean_states, shown_pass
from mindset.llm.engine.reads import Reads
from mindset.llm.request import ForwardRequest

IDS = (5, 7, 9, 3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2"])
def test_a_pass_is_shown_and_leaves_the_model_as_it_was(family: str) -> None:
    model = tiny_model(family)
    code = model.config._attn_implementation
    with torch.no_grad():
        plain = model(torch.tensor([IDS])).logits[0].numpy()
    wanted = ForwardRequest(ids=IDS, hidden_states=True, attention=True)
    shown = shown_pass(model, IDS, wanted, Reads(model))
    np.testing.assert_allclose(shown.logits, plain, atol=1e-4)
    assert shown.hidden_states.shape == (3, 4, 16)
    assert shown.attention.shape[0] == 2
    assert np.allclose(np.triu(shown.attention, 1), 0)
    assert model.config._attn_implementation == code


def test_what_was_not_asked_for_is_not_shown() -> None:
    model = tiny_model("llama")
    shown = shown_pass(model, IDS, ForwardRequest(ids=IDS, logits=False), Reads(model))
    assert (shown.logits, shown.hidden_states, shown.attention, shown.reads) == (None, None, None, ())


def test_attention_that_is_not_shown_is_refused() -> None:
    model = tiny_model("llama")
    type(model)._can_set_attn_implementation = lambda _: False
    try:
        with pytest.raises(UnsupportedRequestError, match="does not show its attention"):
            shown_pass(model, IDS, ForwardRequest(ids=IDS, attention=True), Reads(model))
    finally:
        del type(model)._can_set_attn_implementation


def test_means_do_not_depend_on_the_texts_beside() -> None:
    model = tiny_model("llama")
    together = mean_states(model, [IDS, (5,), (9, 9, 9)])
    for row, ids in enumerate((IDS, (5,), (9, 9, 9))):
        np.testing.assert_allclose(together[row], mean_states(model, [ids])[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
