"""Tiny seeded models and tokenizers of the kinds that count bytes differently."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mindset.probe.texts import find_shared
from mindset.probe.windows import Windows

VOCAB = 97
TRAINING_TEXT = [
    "Once upon a time there was a tiny model.",
    "It read an öde, a 詩 and a 🙂, and was glad.",
] * 20

LLAMA_LIKE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
GPT_LIKE = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**LLAMA_LIKE),
    "gpt2": lambda: GPT2Config(**GPT_LIKE),
    "gptj": lambda: GPTJConfig(**GPT_LIKE, rotary_dim=4),
    "gpt_neox": lambda: GPTNeoXConfig(**{**LLAMA_LIKE, "num_key_value_heads": 4}),
    # A cap this low bends even the small logits of an untrained model.
    "gemma2": lambda: Gemma2Config(**LLAMA_LIKE, head_dim=8, final_logit_softcapping=0.5),
    "phi": lambda: PhiConfig(**LLAMA_LIKE),
    "opt": lambda: OPTConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=16,
        do_layer_norm_before=True,
        max_position_embeddings=128,
    ),
    "bloom": lambda: BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4),
    "falcon": lambda: FalconConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    ),
    "cohere": lambda: CohereConfig(**LLAMA_LIKE, logit_scale=0.25),
    "granite": lambda: GraniteConfig(**LLAMA_LIKE, logits_scaling=3.0),
}
FAMILIES = sorted(CONFIGS)


def tiny_model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    config = CONFIGS[family]()
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        # Biases start at zero, where a forgotten bias goes unseen.
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model.to(dtype).eval()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    return tiny_model


@pytest.fixture
def windows() -> Windows:
    """Four full windows of 16 tokens and one of 7."""
    rng = np.random.default_rng(3)
    return Windows(rng.integers(3, VOCAB, 71), rng.integers(1, 5, 71), length=16)


def _byte_level(normalizer: object = None, add_prefix_space: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return tokenizer


def _llama_like(byte_fallback: bool) -> Tokenizer:
    vocab = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
    for piece in ["▁", *"abcdefghijklmnopqrstuvwxyz.,", "ö", "▁a", "on", "ce"]:
        vocab[piece] = len(vocab)
    merges = [("▁", "a"), ("o", "n"), ("c", "e")]
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def _bert_like() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return tokenizer


BACKENDS: dict[str, Callable[[], Tokenizer]] = {
    "byte level": _byte_level,
    "byte level, NFC": lambda: _byte_level(normalizers.NFC()),
    "byte level, prefix space": lambda: _byte_level(add_prefix_space=True),
    "byte fallback": lambda: _llama_like(byte_fallback=True),
    "unknown tokens": lambda: _llama_like(byte_fallback=False),
    "offsets without spaces": _bert_like,
}


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    return {name: PreTrainedTokenizerFast(tokenizer_object=make()) for name, make in BACKENDS.items()}


@pytest.fixture(scope="session")
def shared() -> Path:
    beside = Path(__file__).parents[2].parent / "shared"
    found = find_shared(beside)
    if found is None:
        named = os.environ.get("MINDSET_SHARED", "not set")
        pytest.skip(f"no shared data: MINDSET_SHARED is {named}, and there is none in {beside}")
    return found


@pytest.fixture(scope="session")
def speaker_folder(
    tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, PreTrainedTokenizerFast]
) -> Path:
    """A plain model folder with a byte-level tokenizer; what it says is random, but far from uniform."""
    folder = tmp_path_factory.mktemp("models") / "speaker"
    config = LlamaConfig(**{**LLAMA_LIKE, "vocab_size": 300, "initializer_range": 0.3})
    config.pad_token_id, config.bos_token_id, config.eos_token_id = None, None, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizers["byte level"].save_pretrained(folder)
    return folder
