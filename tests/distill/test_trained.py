from __future__ import annotations

from typing import Any

import pytest
from distill.small import make_settings, make_teacher
from graft.tiny import tiny_model
from torch import nn

from mindset.distill.trained import choose_trained, parameter_groups
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan


def trained(student: nn.Module) -> set[str]:
    return {name for name, parameter in student.named_parameters() if parameter.requires_grad}


def chosen(plan: ConversionPlan, what: Any, teacher: Any = None) -> set[str]:
    student = build_student(teacher or make_teacher(), plan)
    choose_trained(student, make_settings(plan, trained=what))
    return trained(student)


PLAN = ConversionPlan(k=6, skip="affine", layers="1")


def test_memory_is_the_banks_and_their_skips() -> None:
    wanted = {f"model.layers.1.mlp.shards.base.{field}" for field in ("key", "modulator", "value")}
    wanted |= {f"model.layers.1.mlp.skip.{field}" for field in ("weight", "bias")}
    assert chosen(PLAN, "memory") == wanted


def test_attention_adds_attention_and_norms_of_all_layers_and_nothing_else() -> None:
    added = chosen(PLAN, "attention") - chosen(PLAN, "memory")
    wanted = {
        f"model.layers.{layer}.{part}.weight"
        for layer in (0, 1)
        for part in (
            "input_layernorm",
            "post_attention_layernorm",
            *(f"self_attn.{name}_proj" for name in "qkvo"),
        )
    }
    assert added == wanted | {"model.norm.weight"}


@pytest.mark.parametrize("family", ["gpt2", "opt", "bloom", "gpt_neox", "gemma2"])
def test_attention_leaves_embeddings_and_other_blocks_alone_in_every_layout(family: str) -> None:
    names = chosen(PLAN, "attention", tiny_model(family))
    other = (
        "wte",
        "wpe",
        "embed_tokens",
        "embed_positions",
        "word_embeddings.",
        "embed_in",
        "embed_out",
        "lm_head",
    )
    blocks = ("0.mlp", "0.fc1", "0.fc2")
    assert not [name for name in names if any(part in name for part in (*other, *blocks))]
    assert any("attn" in name or "attention" in name for name in names)
    assert any("ln" in name or "norm" in name for name in names)


def test_all_is_all() -> None:
    teacher = make_teacher(tied=False)
    student = build_student(teacher, PLAN)
    assert chosen(PLAN, "all", teacher) == {name for name, _ in student.named_parameters()}


def test_a_choice_undoes_the_one_before() -> None:
    student = build_student(make_teacher(), PLAN)
    choose_trained(student, make_settings(PLAN, trained="all"))
    choose_trained(student, make_settings(PLAN, trained="memory"))
    assert trained(student) == chosen(PLAN, "memory")


def test_frozen_keys_of_an_associative_bank_do_not_train() -> None:
    plan = ConversionPlan(bank="associative", slots=8, k=4, gradient="frozen")
    assert not [name for name in chosen(plan, "all") if name.endswith("shards.base.key")]
    other = ConversionPlan(bank="associative", slots=8, k=4, gradient="scores")
    assert len([name for name in chosen(other, "memory") if name.endswith("shards.base.key")]) == 2


def test_every_trained_parameter_is_in_one_group_with_its_rate() -> None:
    settings = make_settings(PLAN, trained="attention", value_lr_factor=3.0, dense_lr_factor=0.5)
    student = build_student(make_teacher(), PLAN)
    choose_trained(student, settings)
    groups = parameter_groups(student, settings, 0.1)
    assert {group["name"]: round(group["lr"], 6) for group in groups} == {
        "keys": 0.1,
        "values": 0.3,
        "beside": 0.1,
        "dense": 0.05,
    }
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    grouped = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == trained(student)
    value = banks(student)[1].shards["base"].value
    assert [group["name"] for group in groups if any(p is value for p in group["params"])] == ["values"]


def test_groups_without_parameters_are_left_out() -> None:
    plan = ConversionPlan(k=6)
    student = build_student(make_teacher(), plan)
    choose_trained(student, make_settings(plan))
    assert [group["name"] for group in parameter_groups(student, make_settings(plan), 0.1)] == [
        "keys",
        "values",
    ]
