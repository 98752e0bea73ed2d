from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mindset.errors import UsageError
from mindset.graft import folder as model_folder
from mindset.graft.convert import build_student, convert
from mindset.graft.model import banks
from mindset.graft.plan import ConversionPlan
from mindset.graft.sources import load_teacher
from mindset.probe.unembedding import direct_logits, final_norm, residual_directions
from mindset.probe.why import explain, why
from mindset.store.memory import Memory
from mindset.store.slots import Change, Citation

MakeModel = Callable[..., PreTrainedModel]
PROMPT = "Once upon a time"
PLANS = {
    "mirror": ConversionPlan(k=6),
    "mirror and new slots": ConversionPlan(k=40, slots=30),
    "featural": ConversionPlan(bank="featural", slots=20, heads=2, k=5),
    "softmax": ConversionPlan(bank="featural", slots=20, heads=2, k=5, weight="softmax"),
}
KNOWN = ["bloom", "falcon", "gemma2", "gpt2", "gpt_neox", "gptj", "llama", "opt", "phi"]


@pytest.fixture(params=sorted(PLANS))
def student(request: pytest.FixtureRequest, speaker_folder: Path) -> PreTrainedModel:
    loaded = load_teacher(str(speaker_folder), dtype=torch.float64)
    return build_student(loaded.model, PLANS[request.param])


@pytest.fixture
def tokenizer(tokenizers: dict[str, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    return tokenizers["byte level"]


def bank_inputs(model: PreTrainedModel, ids: torch.Tensor) -> dict[int, torch.Tensor]:
    caught: dict[int, torch.Tensor] = {}
    handles = [
        bank.register_forward_pre_hook(lambda bank, args: caught.update({bank.layer: args[0][0, -1]}))
        for bank in banks(model).values()
    ]
    with torch.no_grad():
        model(input_ids=ids)
    for handle in handles:
        handle.remove()
    return caught


def test_influences_equal_a_naive_computation(
    speaker_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    student = build_student(load_teacher(str(speaker_folder), dtype=torch.float64).model, PLANS["mirror"])
    answer = explain(student, tokenizer, PROMPT, top=100)
    inputs = bank_inputs(student, torch.tensor([tokenizer(PROMPT)["input_ids"]]))
    naive = {}
    for layer, x in inputs.items():
        rows = banks(student)[layer].shards["base"]
        for slot in range(rows.n_slots):
            key, modulator, value = (part[slot].detach() for part in (rows.key, rows.modulator, rows.value))
            weight = float(torch.nn.functional.silu(key @ x) * (modulator @ x))
            naive[layer, slot] = weight, abs(weight) * float(value.norm())
    wanted = [
        sorted((key for key in naive if key[0] == layer), key=lambda key: -naive[key][1])[:6]
        for layer in inputs
    ]
    assert {(slot.layer, slot.row) for slot in answer.slots} == {key for layer in wanted for key in layer}
    assert answer.slots_read == len(answer.slots) == 12
    for slot in answer.slots:
        weight, influence = naive[slot.layer, slot.row]
        assert slot.weight == pytest.approx(weight)
        assert slot.influence == pytest.approx(influence)
        assert slot.source == "the teacher's own neuron"
    assert [s.influence for s in answer.slots] == sorted((s.influence for s in answer.slots), reverse=True)
    assert answer.influence_share == pytest.approx(1)


def test_the_slots_that_were_read_add_up_to_the_memory(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    """What all slots of the last layer add to a logit is the derivative by that bank's size."""
    answer = explain(student, tokenizer, PROMPT, top=1000)
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    bank, scale = banks(student)[1], torch.ones((), requires_grad=True)
    read = bank.read
    bank.read = lambda x: scale * (read(x) - bank.output_bias(x)) + bank.output_bias(x)  # type: ignore[method-assign]
    student(input_ids=ids).logits[0, -1, answer.candidates[0].id].backward()
    told = sum(slot.logit for slot in answer.slots if slot.layer == 1)
    assert told == pytest.approx(scale.grad.item(), rel=1e-4)


@pytest.mark.parametrize("known", KNOWN)
def test_direct_logits_are_derivatives(make_model: MakeModel, known: str) -> None:
    model = make_model(known, dtype=torch.float64)
    model.config.final_logit_softcapping = None
    student = build_student(model, ConversionPlan())
    ids = torch.tensor([[5, 17, 60, 8]])
    bank, states, outputs = banks(student)[1], [], []
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(bank.d_model, dtype=torch.float64, generator=generator)
    weights = torch.randn(97, dtype=torch.float64, generator=generator)
    step = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def bump(_: object, args: object, output: torch.Tensor) -> torch.Tensor:
        outputs.append(output.detach().view(-1, bank.d_model)[-1])
        return output + step * direction

    bank.register_forward_hook(bump)
    final_norm(student).register_forward_pre_hook(lambda _, args: states.append(args[0][0, -1].detach()))
    (student(input_ids=ids).logits[0, -1] @ weights).backward()
    reaching = residual_directions(student, 1, outputs[-1], direction[None])
    ours = direct_logits(student, states[-1], reaching)[0]
    assert float(ours @ weights) == pytest.approx(step.grad.item(), rel=1e-5, abs=1e-5)


def test_promoted_tokens_are_the_value_through_the_unembedding(
    speaker_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    student = build_student(load_teacher(str(speaker_folder), dtype=torch.float64).model, PLANS["mirror"])
    slot = explain(student, tokenizer, PROMPT, top=1).slots[0]
    value = banks(student)[slot.layer].shards["base"].value[slot.row].detach()
    states = []
    final_norm(student).register_forward_pre_hook(lambda _, args: states.append(args[0][0, -1].detach()))
    with torch.no_grad():
        student(input_ids=torch.tensor([tokenizer(PROMPT)["input_ids"]]))
    state = states[-1]
    # RMSNorm by hand: the gain, and the share of the direction that only makes the state longer.
    signed = value * (1 if slot.weight > 0 else -1)
    mean_square = state.square().mean() + student.config.rms_norm_eps
    turned = signed - state * (state @ signed) / (len(state) * mean_square)
    logits = student.lm_head.weight @ (turned * final_norm(student).weight)
    wanted = [tokenizer.decode([i]) for i in logits.topk(5).indices]
    spelled = [tokenizer.convert_ids_to_tokens(int(i)) for i in logits.topk(5).indices]
    assert all(
        ours in both for ours, both in zip(slot.promotes, zip(wanted, spelled, strict=True), strict=True)
    )


def test_candidates_are_the_likeliest_tokens(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    answer = explain(student, tokenizer, PROMPT)
    with torch.no_grad():
        logits = student(input_ids=torch.tensor([tokenizer(PROMPT)["input_ids"]])).logits[0, -1]
    best = logits.softmax(-1).topk(5)
    assert [candidate.id for candidate in answer.candidates] == best.indices.tolist()
    assert [c.probability for c in answer.candidates] == pytest.approx(best.values.tolist(), rel=1e-5)


def test_new_slots_are_named_by_shard_and_row(
    speaker_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    student = build_student(load_teacher(str(speaker_folder)).model, ConversionPlan(slots=30))
    with torch.no_grad():
        banks(student)[0].shards["new"].value[7] *= 1e6
    first = explain(student, tokenizer, PROMPT, top=3).slots[0]
    assert (first.layer, first.shard, first.row, first.source) == (0, "new", 7, "learned")


def test_asking_a_folder_changes_nothing(
    speaker_folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    convert(str(speaker_folder), tmp_path / "student", PLANS["mirror"])
    before = {p: p.read_bytes() for p in (tmp_path / "student").rglob("*") if p.is_file()}
    answer = why(tmp_path / "student", PROMPT, top=4)
    unnamed = replace(answer, slots=tuple(replace(slot, slot=None) for slot in answer.slots))
    assert unnamed == explain(model_folder.load(tmp_path / "student"), tokenizer, PROMPT, top=4)
    assert {p: p.read_bytes() for p in (tmp_path / "student").rglob("*") if p.is_file()} == before
    assert len(json.loads(json.dumps(answer.to_json()))["slots"]) == 4
    text = answer.to_text().splitlines()
    assert text[0].startswith("next   '")
    assert text[2].split() == ["layer", "head", "slot", "influence", "weight", "logit", "source", "promotes"]
    assert len(text) == 3 + 4 + 3


def test_what_cannot_be_asked_is_refused(
    speaker_folder: Path, student: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(UsageError, match="has no memory to ask"):
        why(speaker_folder, PROMPT)
    with pytest.raises(UsageError, match="at least 1 slot"):
        explain(student, tokenizer, PROMPT, top=0)
    with pytest.raises(UsageError, match="prompt is empty"):
        explain(student, tokenizer, "")


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("plan", ["mirror and new slots", "featural"])
def test_slots_of_a_saved_model_have_the_ids_that_memory_takes(
    speaker_folder: Path, tmp_path: Path, plan: str, edited: bool
) -> None:
    out = tmp_path / "student"
    convert(str(speaker_folder), out, PLANS[plan])
    if edited:
        with Memory(out) as memory:
            memory.change([1], Change(label="unheard"))
    answer = why(out, PROMPT, top=5)
    with Memory(out, read_only=True) as memory:
        for slot in answer.slots:
            assert slot.slot is not None
            record = memory.store.records([slot.slot])[0]
            assert (record.layer, record.shard, record.head) == (slot.layer, slot.shard, slot.head)
            value = memory.store.fetch([slot.slot], ["value"])["value"][0]
            bank = banks(load_teacher(str(out)).model)[slot.layer]
            rows = bank.shards[slot.shard].value.detach()
            mine = rows[slot.row] if rows.ndim == 2 else rows[slot.head, slot.row]
            assert value.tolist() == mine.tolist()
    assert answer.to_text().splitlines()[2].split()[2] == "slot"


def test_a_slot_tells_its_label_and_the_line_that_it_cites(speaker_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    convert(str(speaker_folder), out, PLANS["mirror"])
    first, second, *_ = why(out, PROMPT, top=5).slots
    with Memory(out) as memory:
        with memory.store.ledger.editing("source") as edit:
            number = edit.add_source("Moby Dick", "Call me Ishmael. Some years ago")
        memory.change([first.slot], Change(cites=Citation(number, 0, 16)))
        memory.change([second.slot], Change(label="the opening"))
    answer = why(out, PROMPT, top=5)
    assert [(slot.slot, slot.label, slot.source) for slot in answer.slots[:2]] == [
        (first.slot, "", "Moby Dick: Call me Ishmael."),
        (second.slot, "the opening", "the teacher's own neuron"),
    ]
    assert "Moby Dick: Call me Ishmael." in answer.to_text()
    with Memory(out) as memory:
        memory.delete([first.slot])
    assert first.slot not in {slot.slot for slot in why(out, PROMPT, top=50).slots}
