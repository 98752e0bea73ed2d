from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from mindset.errors import UsageError
from mindset.graft.convert import build_student, convert
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher
from mindset.probe.generate import continue_text, decoded_pieces, generate, next_tokens

MakeModel = Callable[..., PreTrainedModel]
PROMPT = "Once upon a time"


def greedy(model: PreTrainedModel, ids: torch.Tensor, n: int) -> list[int]:
    config = GenerationConfig(max_new_tokens=n, do_sample=False, pad_token_id=0, eos_token_id=None)
    out = model.generate(ids[None], attention_mask=torch.ones_like(ids[None]), generation_config=config)
    return [int(token) for token in out[0, len(ids) :]]


def test_greedy_tokens_are_those_of_transformers(make_model: MakeModel, family: str) -> None:
    model, ids = make_model(family), torch.tensor([5, 17, 60, 8])
    model.generation_config.eos_token_id = None
    assert list(next_tokens(model, ids, 24)) == greedy(model, ids, 24)


def test_a_student_too(make_model: MakeModel) -> None:
    student = build_student(make_model("llama"), ConversionPlan(k=6, propose="score", candidates=12))
    student.generation_config.eos_token_id = None
    ids = torch.tensor([5, 17, 60, 8])
    assert list(next_tokens(student, ids, 24)) == greedy(student, ids, 24)


def test_a_seed_names_the_text(speaker_folder: Path) -> None:
    def text(seed: int, temperature: float = 1.0) -> str:
        return "".join(generate(speaker_folder, PROMPT, max_tokens=20, temperature=temperature, seed=seed))

    assert text(1) == text(1) != text(2)
    assert text(1, temperature=0) == text(2, temperature=0)


def test_sampling_follows_the_temperature(make_model: MakeModel) -> None:
    model, ids = make_model("llama"), torch.tensor([5, 17, 60, 8])
    with torch.no_grad():
        wanted = (model(input_ids=ids[None]).logits[0, -1] / 0.5).softmax(-1)
    drawn = torch.zeros_like(wanted)
    for seed in range(600):
        drawn[next(next_tokens(model, ids, 1, temperature=0.5, seed=seed))] += 1 / 600
    assert float((drawn - wanted).abs().max()) < 0.07


def test_pieces_join_to_the_text(speaker_folder: Path) -> None:
    loaded = load_teacher(str(speaker_folder))
    ids = torch.tensor(loaded.tokenizer(PROMPT)["input_ids"])
    tokens = greedy(loaded.model, ids, 40)
    whole = loaded.tokenizer.decode([*ids.tolist(), *tokens], clean_up_tokenization_spaces=False)
    pieces = list(continue_text(loaded.model, loaded.tokenizer, PROMPT, max_tokens=40))
    assert PROMPT + "".join(pieces) == whole
    assert all(pieces)


def sentence_piece(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer with the decoder of Llama's, which drops the space that a text begins with."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
def test_a_character_comes_whole(kind: str, tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    tokenizer = tokenizers[kind] if kind == "byte level" else sentence_piece(tokenizers[kind])
    begun, rest = "once a", " on ö 詩🙂 once, end."
    prompt = tokenizer(begun)["input_ids"]
    ids = tokenizer(begun + rest)["input_ids"]
    assert ids[: len(prompt)] == prompt
    pieces = list(decoded_pieces(tokenizer, prompt, iter(ids[len(prompt) :])))
    assert "".join(pieces) == rest
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert len(pieces) > 5


def test_what_stays_unfinished_is_told_at_the_end(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    tokenizer = tokenizers["byte level"]
    ids = tokenizer("🙃")["input_ids"]
    assert len(ids) > 1
    pieces = list(decoded_pieces(tokenizer, tokenizer("a")["input_ids"], iter(ids[:-1])))
    assert "".join(pieces).startswith("\N{REPLACEMENT CHARACTER}")


def test_the_end_token_ends_it_unsaid(speaker_folder: Path) -> None:
    loaded = load_teacher(str(speaker_folder))
    ids = torch.tensor(loaded.tokenizer(PROMPT)["input_ids"])
    tokens = greedy(loaded.model, ids, 20)
    stop = tokens[7]
    for named in (stop, [stop, 299]):
        loaded.model.generation_config.eos_token_id = named
        pieces = continue_text(loaded.model, loaded.tokenizer, PROMPT, max_tokens=20)
        said = loaded.tokenizer.decode([*ids.tolist(), *tokens[: tokens.index(stop)]])
        assert PROMPT + "".join(pieces) == said


def test_it_ends_where_the_context_ends(make_model: MakeModel, speaker_folder: Path) -> None:
    loaded = load_teacher(str(speaker_folder))
    prompt = "a" * 120
    n = len(loaded.tokenizer(prompt)["input_ids"])
    assert 8 < n < 128
    loaded.model.config.max_position_embeddings = n + 3
    text = "".join(continue_text(loaded.model, loaded.tokenizer, prompt, max_tokens=50))
    wanted = greedy(loaded.model, torch.tensor(loaded.tokenizer(prompt)["input_ids"]), 3)
    assert text == loaded.tokenizer.decode(wanted)


def test_a_folder_with_a_memory_says_the_same(speaker_folder: Path, tmp_path: Path) -> None:
    convert(str(speaker_folder), tmp_path / "student", ConversionPlan())
    texts = [
        "".join(generate(model, PROMPT, max_tokens=20)) for model in (speaker_folder, tmp_path / "student")
    ]
    assert texts[0] == texts[1] != ""


def test_what_cannot_be_continued_is_refused_before_the_first_piece(speaker_folder: Path) -> None:
    for wrong in ({"max_tokens": 0}, {"temperature": -1.0}):
        with pytest.raises(UsageError, match="give at least 1 token"):
            generate(speaker_folder, PROMPT, **wrong)
    with pytest.raises(UsageError, match="prompt is empty"):
        generate(speaker_folder, "")
    with pytest.raises(UsageError, match="shorten it"):
        generate(speaker_folder, "word and word " * 200)
