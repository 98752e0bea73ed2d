from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaForCausalLM,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mindset.distill.sampling import Drawing, draw_rows, draw_tokens
from mindset.errors import UsageError

VOCAB = 50
CONFIGS: list[PreTrainedConfig] = [
    GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=32),
    OPTConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=2,
    ),
    BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=2, n_head=2),
    GPTNeoXConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    ),
    MistralConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=5,
    ),
]


def drawn(model: PreTrainedModel, drawing: Drawing, eos: int | None = None, seed: int = 0) -> np.ndarray:
    return draw_rows(model, lambda row: [2, 3 + row], drawing, eos_token_id=eos, seed=seed)


def without_cache(model: PreTrainedModel, drawing: Drawing, seed: int = 0) -> np.ndarray:
    """The same drawing, every position from the whole row so far."""
    uniform = torch.rand((drawing.length, drawing.rows), generator=torch.Generator().manual_seed(seed))
    rows = torch.tensor([[2, 3 + row] for row in range(drawing.rows)])
    with torch.no_grad():
        for pos in range(2, drawing.length):
            logits = model(input_ids=rows, use_cache=False).logits[:, -1]
            rows = torch.cat([rows, draw_tokens(logits, uniform[pos], 1.0, None)[:, None]], dim=1)
    return rows.numpy()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_the_cache_gives_what_whole_rows_give(config: PreTrainedConfig) -> None:
    torch.manual_seed(0)
    config.initializer_range = 0.5
    model = AutoModelForCausalLM.from_config(config).eval()
    drawing = Drawing(rows=3, length=14)
    np.testing.assert_array_equal(drawn(model, drawing), without_cache(model, drawing))


def test_rows_are_full_and_a_new_document_follows_an_end(teacher: LlamaForCausalLM) -> None:
    opened: list[int] = []

    def next_opening(row: int) -> list[int]:
        opened.append(row)
        return [2, 299 - row]

    biased = torch.nn.functional.one_hot(torch.tensor(1), 300) * 4.0
    hook = teacher.lm_head.register_forward_hook(lambda _module, _inputs, out: out + biased)
    try:
        rows = draw_rows(teacher, next_opening, Drawing(rows=4, length=30), eos_token_id=1, seed=0)
    finally:
        hook.remove()
    assert rows.min() >= 0
    ends = 0
    for row, tokens in enumerate(rows.tolist()):
        assert tokens[:2] == [2, 299 - row]
        for pos in np.flatnonzero(rows[row] == 1):
            ends += 1
            assert tokens[pos + 1 : pos + 3] == [2, 299 - row][: len(tokens) - pos - 1]
    assert ends > 4
    assert len(opened) == 4 + ends


def test_a_seed_repeats_and_another_does_not(teacher: LlamaForCausalLM) -> None:
    drawing = Drawing(rows=2, length=20)
    np.testing.assert_array_equal(drawn(teacher, drawing), drawn(teacher, drawing))
    assert not np.array_equal(drawn(teacher, drawing), drawn(teacher, drawing, seed=1))


def test_the_model_stays_in_its_mode_and_torch_keeps_its_own_randomness(teacher: LlamaForCausalLM) -> None:
    teacher.train()
    before = torch.get_rng_state()
    try:
        drawn(teacher, Drawing(rows=1, length=8))
        assert teacher.training
    finally:
        teacher.eval()
    assert torch.equal(torch.get_rng_state(), before)


def test_frequencies_are_the_models_probabilities() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -torch.inf]).expand(40_000, 5)
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    for temperature in (1.0, 0.5):
        counted = draw_tokens(logits, uniform, temperature, None).bincount(minlength=5) / len(uniform)
        torch.testing.assert_close(counted, (logits[0] / temperature).softmax(-1), atol=0.01, rtol=0)


def test_top_p_draws_from_the_smallest_set_with_that_probability() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(1000, 4)
    uniform = torch.linspace(0, 1 - 1e-6, 1000)
    assert set(draw_tokens(logits, uniform, 1.0, 0.6).tolist()) == {0, 1}
    assert set(draw_tokens(logits, uniform, 1.0, 0.01).tolist()) == {0}
    assert set(draw_tokens(logits, uniform, 1.0, 1.0).tolist()) == {0, 1, 2, 3}


def test_the_ends_of_the_distribution_are_tokens_that_can_be_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert draw_tokens(logits, torch.tensor([0.0]), 1.0, None).item() == 1
    assert draw_tokens(logits, torch.tensor([1.0]), 1.0, None).item() == 2


@pytest.mark.parametrize(
    "wrong",
    [{"rows": 0}, {"length": 1}, {"temperature": 0.0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}],
)
def test_settings_that_draw_nothing_are_wrong_usage(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Drawing(**({"rows": 1, "length": 8} | wrong))  # type: ignore[arg-type]


def test_rows_longer_than_the_model_reads_are_refused(teacher: LlamaForCausalLM) -> None:
    with pytest.raises(UsageError, match="at most 64"):
        drawn(teacher, Drawing(rows=1, length=65))
