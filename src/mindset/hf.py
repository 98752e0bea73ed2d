"""`import mindset.hf`: from here on transformers' auto classes open mindset folders."""

from __future__ import annotations

from mindset.graft.hf_classes import MindsetConfig, MindsetForCausalLM, register

__all__ = ["MindsetConfig", "MindsetForCausalLM"]

register()
