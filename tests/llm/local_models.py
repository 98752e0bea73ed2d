"""Tiny model folders that read bytes and answer dialogs."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mindset.graft.convert import convert
from mindset.graft.plan import ConversionPlan

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
END = "<end>"


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Every byte a token, and one that ends a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)
    made.chat_template = template
    return made


def teacher(folder: Path, family: str = "llama", *, template: str | None = TEMPLATE, seed: int = 0) -> Path:
    """A folder with a model that was trained by nobody."""
    made = tokenizer(template)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(_llama()) if family == "llama" else GPT2LMHeadModel(_gpt2())
    model.generation_config.eos_token_id = made.eos_token_id
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def student(folder: Path, *, k: int | None = 8) -> Path:
    """A folder with a memory, and the teacher beside it."""
    source = teacher(folder.with_name(f"{folder.name}-teacher"))
    convert(str(source), folder, ConversionPlan() if k is None else ConversionPlan(k=k))
    return folder


def _llama() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=256,
    )


def _gpt2() -> GPT2Config:
    return GPT2Config(
        vocab_size=257,
        n_embd=32,
        n_inner=48,
        n_layer=2,
        n_head=4,
        n_positions=1024,
        bos_token_id=None,
        eos_token_id=256,
        initializer_range=0.3,
    )
