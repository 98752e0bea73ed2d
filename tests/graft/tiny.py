"""Tiny seeded models of every family, from their config classes; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

D_MODEL, D_MLP, N_LAYERS, VOCAB = 16, 24, 2, 40

_LLAMA_LIKE = {
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
}
_NEOX_LIKE = {name: size for name, size in _LLAMA_LIKE.items() if name != "num_key_value_heads"}
_GPT_LIKE = {"n_embd": D_MODEL, "n_inner": D_MLP, "n_layer": N_LAYERS, "n_head": 2, "vocab_size": VOCAB}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_OPT = {"ffn_dim": D_MLP, "word_embed_proj_dim": D_MODEL, **_NEOX_LIKE}
_OPT.pop("intermediate_size")
_FALCON = {
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "vocab_size": VOCAB,
}

CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **more: hf.LlamaConfig(**_LLAMA_LIKE, **_ENDS, **more),
    "mistral": lambda **more: hf.MistralConfig(**_LLAMA_LIKE, **_ENDS, **more),
    "qwen2": lambda **more: hf.Qwen2Config(**_LLAMA_LIKE, **_ENDS, **more),
    "qwen3": lambda **more: hf.Qwen3Config(head_dim=8, **_LLAMA_LIKE, **_ENDS, **more),
    "gemma2": lambda **more: hf.Gemma2Config(head_dim=8, **_LLAMA_LIKE, **_ENDS, **more),
    "gemma3_text": lambda **more: hf.Gemma3TextConfig(head_dim=8, **_LLAMA_LIKE, **_ENDS, **more),
    "phi": lambda **more: hf.PhiConfig(**_LLAMA_LIKE, **_ENDS, **more),
    "gpt2": lambda **more: hf.GPT2Config(n_positions=128, **_GPT_LIKE, **_ENDS, **more),
    "gpt_neox": lambda **more: hf.GPTNeoXConfig(**_NEOX_LIKE, **_ENDS, **more),
    "gptj": lambda **more: hf.GPTJConfig(n_positions=128, rotary_dim=4, **_GPT_LIKE, **_ENDS, **more),
    "opt": lambda **more: hf.OPTConfig(**_OPT, **_ENDS, **more),
    "bloom": lambda **more: hf.BloomConfig(
        hidden_size=D_MODEL, n_layer=N_LAYERS, n_head=2, vocab_size=VOCAB, **_ENDS, **more
    ),
    "falcon": lambda **more: hf.FalconConfig(ffn_hidden_size=D_MLP, **_FALCON, **_ENDS, **more),
}


def tiny_model(
    family: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, **more: Any
) -> PreTrainedModel:
    """A model whose every parameter, biases and norms included, is drawn, so that none can be lost unseen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = hf.AutoModelForCausalLM.from_config(CONFIGS[family](**more))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                spread = 0.4 if parameter.ndim > 1 else 0.2
                drawn = torch.randn(parameter.shape) * spread
                is_norm_scale = parameter.ndim == 1 and name.endswith("weight")
                parameter.copy_(drawn + 1 if is_norm_scale else drawn)
    return model.to(dtype).eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One word a token: w0 w1 w2 ..."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w0", eos_token="w2")


def save_teacher(model: PreTrainedModel, folder: Path) -> Path:
    """Write a teacher as Hugging Face does, with its tokenizer."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tokens(rows: int = 2, length: int = 12, seed: int = 0) -> torch.Tensor:
    """Random tokens without the special ones."""
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
