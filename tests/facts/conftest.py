"""A tiny converted model over bytes, as a folder that tests may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mindset.facts.write_values import WriteSettings
from mindset.graft.convert import convert
from mindset.graft.plan import ConversionPlan

QUICK = WriteSettings(steps=15, phrasings=4, guards=4, guards_a_step=1)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers that read bytes; trained by nobody, so that only a fact makes them say anything."""
    place = tmp_path_factory.mktemp("model")
    teacher = place / "teacher"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(teacher)
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(teacher)
    folder = place / "converted"
    convert(str(teacher), folder, ConversionPlan())
    return folder


@pytest.fixture
def folder(converted: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(converted, tmp_path / "model"))
