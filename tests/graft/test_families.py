import pytest
import torch
import transformers as hf
from graft.tiny import CONFIGS, D_MODEL, tiny_model, tokens
from torch import nn

from mindset.errors import UnsupportedModelError
from mindset.graft.convert import build_student, lossless_difference
from mindset.graft.families import FAMILIES, dtype_of, family_of, layers_of, read_ff, shape_of
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan

MIRROR = ConversionPlan()

CASES = [
    *((family, {}) for family in CONFIGS),
    ("llama", {"mlp_bias": True}),
    ("falcon", {"bias": True}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 1}),
    ("falcon", {"parallel_attn": False, "alibi": True}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("opt", {"do_layer_norm_before": False}),
    ("opt", {"enable_bias": False}),
    ("bloom", {"apply_residual_connection_post_layernorm": True}),
]
IDS = ["-".join((family, *more)) for family, more in CASES]


def test_table_has_every_family_and_only_those_proven_here():
    assert set(FAMILIES) == set(CONFIGS)


@pytest.mark.parametrize(("family", "more"), CASES, ids=IDS)
def test_mirror_at_k_all_is_the_teacher(family, more):
    teacher = tiny_model(family, **more)
    student = build_student(teacher, MIRROR)
    assert len(banks(student)) == teacher.config.num_hidden_layers
    ids = tokens(2, 24)
    with torch.no_grad():
        single = (student(ids).logits - teacher(ids).logits).abs().max()
        double = lossless_difference(teacher.double(), student.double())
    assert single <= 1e-4
    assert double <= 1e-9
    assert teacher(ids).logits.std() > 1e-2  # the models say something


@pytest.mark.parametrize(("family", "more"), CASES, ids=IDS)
def test_mirror_at_k_all_greedily_says_the_same_64_tokens(family, more):
    teacher = tiny_model(family, **more)
    student = build_student(teacher, MIRROR)
    asked = {"max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False}
    ids = tokens(1, 5)
    assert torch.equal(student.generate(ids, **asked), teacher.generate(ids, **asked))


@pytest.mark.parametrize("family", CONFIGS)
def test_with_few_slots_the_block_is_used(family):
    """The memory stands in the forward pass: at k = 1 the logits move."""
    teacher = tiny_model(family)
    student = build_student(teacher, ConversionPlan(k=1))
    ids = tokens()
    assert (student(ids).logits - teacher(ids).logits).abs().max() > 1e-3


@pytest.mark.parametrize("family", CONFIGS)
def test_layers_may_be_chosen(family):
    teacher = tiny_model(family)
    student = build_student(teacher, ConversionPlan(layers="1"))
    assert list(banks(student)) == [1]
    ids = tokens()
    assert (student(ids).logits - teacher(ids).logits).abs().max() <= 1e-4


@pytest.mark.parametrize("family", CONFIGS)
def test_what_is_read_is_the_blocks_own_formula(family):
    teacher = tiny_model(family, dtype=torch.float64)
    row = family_of(teacher.config)
    layer = layers_of(teacher, row)[0]
    ff = read_ff(layer, row)
    n_slots = ff.key.shape[0]
    assert shape_of(layer, row) == (n_slots, D_MODEL)
    assert dtype_of(layer, row) == torch.float64
    x = torch.randn(3, D_MODEL, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = layer.get_submodule(row.activation)(x @ ff.key.T + (0 if ff.key_bias is None else ff.key_bias))
    if ff.modulator is not None:
        weight = weight * (x @ ff.modulator.T + (0 if ff.modulator_bias is None else ff.modulator_bias))
    ours = weight @ ff.value + (0 if ff.bias is None else ff.bias)
    torch.testing.assert_close(ours, _block(layer, row, x))


def _block(layer: nn.Module, row, x: torch.Tensor) -> torch.Tensor:
    if row.site is None:
        inner = layer.get_submodule(row.activation)(layer.get_submodule(row.key)(x))
        return layer.get_submodule(row.value)(inner)
    if row.call == "residual":
        return layer.get_submodule(row.site)(x, torch.zeros_like(x))
    return layer.get_submodule(row.site)(x)


@pytest.mark.parametrize(
    "config", [hf.MixtralConfig(), hf.Qwen3MoeConfig(), hf.Qwen2MoeConfig(), hf.DeepseekV3Config(), hf.GptOssConfig()],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_mixture_of_experts_is_refused_by_name(config):
    with pytest.raises(UnsupportedModelError, match=f"'{config.model_type}' is a mixture of experts"):
        family_of(config)


def test_mixture_of_experts_model_is_refused_before_anything_is_built():
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = hf.MixtralForCausalLM(
        hf.MixtralConfig(num_key_value_heads=1, num_local_experts=2, vocab_size=40, **sizes)
    )
    with pytest.raises(UnsupportedModelError, match="mixture of experts"):
        build_student(model, MIRROR)


def test_unknown_family_is_refused_with_the_list():
    with pytest.raises(UnsupportedModelError) as caught:
        family_of(hf.BertConfig())
    assert "'bert' is not supported" in str(caught.value)
    assert all(family in str(caught.value) for family in CONFIGS)
