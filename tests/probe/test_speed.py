from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from transformers import PreTrainedModel

from mindset.errors import UsageError
from mindset.probe import speed
from mindset.probe.speed import Decoded, decode, decode_ratio, tokens_per_second

PROMPT = torch.arange(3, 12)


def test_the_loop_chooses_the_tokens_of_greedy_generate(
    make_model: Callable[..., PreTrainedModel], family: str
) -> None:
    model = make_model(family, dtype=torch.float64)
    model.generation_config.eos_token_id = None
    expected = model.generate(
        PROMPT[None], attention_mask=torch.ones_like(PROMPT[None]), max_new_tokens=12, do_sample=False
    )
    assert torch.equal(decode(model, PROMPT, 12).tokens, expected[0, len(PROMPT) :])


def test_the_end_of_sequence_token_does_not_stop_it(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model("llama")
    model.config.eos_token_id = model.generation_config.eos_token_id = int(decode(model, PROMPT, 1).tokens)
    assert len(decode(model, PROMPT, 9).tokens) == 9


def test_the_models_take_turns_and_the_warmup_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    seconds = {"a": iter([99.0, 1.0, 2.0, 4.0]), "b": iter([1.0, 2.0, 2.0, 2.0])}

    def pretend(model: str, prompt: torch.Tensor, new_tokens: int) -> Decoded:
        turns.append(model)
        return Decoded(torch.zeros(new_tokens, dtype=torch.long), 1.0, next(seconds[model]))

    monkeypatch.setattr(speed, "decode", pretend)
    # Undecorated where the tests check types: the pretended models are names.
    run = getattr(decode_ratio, "__wrapped__", decode_ratio)
    result = run("a", "b", PROMPT, 8, pairs=3, warmup=1)
    assert turns == ["a", "b"] * 4
    assert (result.ratio, result.ratio_min, result.ratio_max) == (1.0, 0.5, 2.0)
    assert (result.a_tokens_per_second, result.b_tokens_per_second) == (4.0, 4.0)
    assert result.ratio_with_prompt == 1.0
    assert (result.prompt_tokens, result.new_tokens, result.pairs) == (9, 8, 3)


def test_a_model_beside_itself_and_alone(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model("llama").train()
    result = decode_ratio(model, model, PROMPT, 4, pairs=3)
    assert 0 < result.ratio_min <= result.ratio <= result.ratio_max
    assert tokens_per_second(model, PROMPT, 4, runs=2) > 0
    assert model.training


def test_every_step_reads_one_token(make_model: Callable[..., PreTrainedModel]) -> None:
    model, widths = make_model("llama"), []
    handle = model.model.embed_tokens.register_forward_pre_hook(
        lambda _, args: widths.append(args[0].shape[1])
    )
    decode(model, PROMPT, 5)
    handle.remove()
    assert widths == [8, 1, 1, 1, 1, 1]
    assert all(later <= earlier for earlier, later in pairwise(widths))


def test_what_cannot_be_timed_is_refused(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model("llama")
    with pytest.raises(UsageError, match="at least 2 token ids"):
        decode(model, PROMPT[:1])
    with pytest.raises(UsageError, match="new_tokens=0"):
        decode(model, PROMPT, 0)
    with pytest.raises(UsageError, match="pairs=0"):
        decode_ratio(model, model, PROMPT, pairs=0)
    with pytest.raises(UsageError, match="runs=0"):
        tokens_per_second(model, PROMPT, runs=0)
