"""A small teacher, its tokens and its runs, for the training tests and for the processes that they kill."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mindset.distill.corpus import Corpus
from mindset.distill.mixture import Mixture
from mindset.distill.schedule import Clock
from mindset.distill.settings import DistillSettings
from mindset.distill.stages import Stage
from mindset.distill.token_stream import TokenStream
from mindset.distill.training import Run, silent
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan

VOCAB, D_MODEL, D_MLP, SEQ = 48, 32, 48, 16


def make_teacher(*, tied: bool = True, seed: int = 0) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One word a token: w0 w1 w2 ..."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", bos_token="w1", eos_token="w2")


def words(n: int, seed: int = 0) -> np.ndarray:
    """Tokens of a made-up language in which a word has five likely successors."""
    generator = np.random.default_rng(seed)
    follow = np.random.default_rng(9).integers(3, VOCAB, (VOCAB, 5))
    tokens = [3]
    for choice in generator.integers(0, 5, n - 1):
        tokens.append(int(follow[tokens[-1], choice]))
    return np.array(tokens, dtype=np.uint32)


def write_text(path: Path, n: int = 4000, seed: int = 0) -> Path:
    path.write_text(" ".join(f"w{token}" for token in words(n, seed)), encoding="utf-8")
    return path


def make_mixture(seed: int = 0, batch: int = 8) -> Mixture:
    corpus = Corpus("words", words(6000), 1, 6000, "words")
    return Mixture([(TokenStream(corpus, SEQ, seed=seed), 1.0)], batch=batch)


def make_settings(plan: ConversionPlan | None = None, **changes: Any) -> DistillSettings:
    base = DistillSettings(
        plan=plan or ConversionPlan(k=6, skip="affine"),
        data=("words.txt",),
        steps=20,
        batch=8,
        seq_len=SEQ,
        lr=5e-3,
        lr_end_to_end=3e-3,
        fit_tokens=256,
        checkpoint_every=0,
    )
    return replace(base, **changes)


def make_stage(
    kind: type[Stage], student: Any, teacher: Any, settings: DistillSettings, steps: int = 20, seed: int = 0
) -> Stage:
    return kind(
        student,
        teacher,
        settings=settings,
        clock=Clock(steps, None),
        data=make_mixture(seed, settings.batch),
        lr=settings.lr,
    )


def make_run(
    folder: Path,
    settings: DistillSettings,
    *,
    resume: bool = False,
    progress: Any = silent,
    teacher: Any = None,
) -> Run:
    """A run of the small teacher, everything built anew from its seeds."""
    teacher = make_teacher() if teacher is None else teacher
    student = build_student(teacher, settings.plan)
    return Run(teacher, student, make_tokenizer(), settings, folder, resume, progress)


def weights(model: Any) -> dict[str, bytes]:
    """Every bit of a model's parameters and buffers, by name."""
    return {
        name: tensor.detach().contiguous().numpy().tobytes()
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }


def digest(model: Any) -> str:
    """The weights in one line."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(weights(model).items()):
        hashed.update(name.encode() + tensor)
    return hashed.hexdigest()


def first_bank(model: Any) -> Any:
    return next(iter(banks(model).values()))
