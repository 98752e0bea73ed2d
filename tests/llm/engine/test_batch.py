"""Texts that run together, against the plain loop for each of them alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from graft.test_trail import with_marks
from graft.tiny import CONFIGS, VOCAB, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from llm.engine.texts import LONGEST, Told, alone, batch_of, model_of, row_of, spelled, words
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from mindset.errors import CallError
from mindset.graft.model import banks
from mindset.llm.engine.batch import Batch
from mindset.llm.engine.grammar import Grammars
from mindset.llm.events import Finished
from mindset.llm.request import Options

MODELS = {name: model_of(name) for name in ("llama", "gpt2", "student")} | {"facts": with_marks()}


@dataclass
class Asked:
    """A text to be continued, and what came of it."""

    ids: list[int]
    options: Options
    told: Told

    @classmethod
    def of(cls, ids: list[int], **options: object) -> Asked:
        return cls(ids, Options(**{"temperature": 1.0, **options}), Told())

    def add(self, batch: Batch) -> Asked:
        self.row = row_of(self.ids, self.options, self.told)
        batch.add(self.row)
        return self


def finish(batch: Batch) -> None:
    while batch.step():
        pass


@pytest.mark.parametrize("family", [*CONFIGS, "student"])
def test_many_at_once_say_what_each_says_alone(family: str) -> None:
    model = model_of(family)
    prompts = [[5 + n, 7, 9, 3 + n][: 2 + n % 3] for n in range(7)]
    asked = [Asked.of(ids, max_tokens=6 + n, seed=n) for n, ids in enumerate(prompts)]
    batch = batch_of(model, rows=4, piece=3, lone_piece=12)
    for one in asked:
        one.add(batch)
    finish(batch)
    assert [one.told.text for one in asked] == [spelled(alone(model, one.ids, one.options)) for one in asked]
    assert batch.running == 0


def test_layers_that_see_a_window_only() -> None:
    model = tiny_model("mistral", sliding_window=6)
    asked = [Asked.of([5 + n] * (2 + 5 * n), max_tokens=12, seed=n) for n in range(3)]
    batch = batch_of(model, rows=3)
    for one in asked:
        one.add(batch)
    finish(batch)
    assert [one.told.text for one in asked] == [spelled(alone(model, one.ids, one.options)) for one in asked]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_schedule_gives_each_what_it_says_alone(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(MODELS)))
    model = MODELS[name]
    batch = batch_of(
        model,
        rows=data.draw(st.integers(1, 5)),
        piece=data.draw(st.integers(1, 6)),
        lone_piece=data.draw(st.integers(4, 30)),
        prefix_bytes=data.draw(st.sampled_from([0, 1 << 20])),
        cache_bytes=data.draw(st.sampled_from([1, 40_000, 90_000, 1 << 30])),
    )
    asked: list[Asked] = []
    cancelled: list[Asked] = []
    for number in range(data.draw(st.integers(1, 20))):
        what = data.draw(st.sampled_from(["ask", "ask", "step", "step", "cancel"]))
        if what == "ask":
            ids = data.draw(st.lists(st.sampled_from([3, 5, 7, 9]), min_size=1, max_size=14))
            options = {"max_tokens": data.draw(st.integers(1, 9)), "seed": number}
            asked.append(Asked.of(ids, **options).add(batch))
        elif what == "cancel" and asked:
            one = asked.pop(data.draw(st.integers(0, len(asked) - 1)))
            one.row.job.ticket.cancel()
            cancelled.append(one)
        else:
            batch.step()
    finish(batch)
    for one in asked:
        assert one.told.text == spelled(alone(model, one.ids, one.options))
        assert one.told.reason in ("stop", "length")
    for one in cancelled:
        assert spelled(alone(model, one.ids, one.options)).startswith(one.told.text)
        assert isinstance(one.told.last, Finished)
    assert batch.running == 0


def test_where_ram_is_short_the_latest_wait_and_all_say_what_they_say_alone() -> None:
    model = MODELS["llama"]
    room = 3 * 128 * 2 * 2 * 8 * 4  # what three texts of the whole context take in two layers
    batch = batch_of(model, rows=8, cache_bytes=room, prefix_bytes=0)
    asked = [Asked.of([5 + n, 7], max_tokens=100, seed=n).add(batch) for n in range(8)]
    together, most = [], 0
    while batch.step():
        together.append(batch.running)
        if batch.running > 1:
            most = max(most, batch.cache_nbytes)
        assert asked[0].row.over or asked[0].row not in batch.waiting, "the first never waits again"
    assert [one.told.text for one in asked] == [spelled(alone(model, one.ids, one.options)) for one in asked]
    assert most <= 1.5 * room, "a step may go beyond; the next one makes room"
    assert max(together) > min(together[:20]), "some waited again"
    assert all(isinstance(one.told.last, Finished) and not one.told.last.usage.cached_tokens for one in asked)


def test_one_alone_takes_the_steps_of_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mask, no positions, the same products: so the same bits."""
    model = model_of("llama")
    logits: list[torch.Tensor] = []
    handle = model.register_forward_hook(
        lambda _, __, given, output: logits.append(output.logits.clone()) or _refuse(given), with_kwargs=True
    )
    one = Asked.of([5, 7, 9], max_tokens=20, seed=1)
    wanted = alone(model, one.ids, one.options)
    plain, logits[:] = list(logits), []
    batch = batch_of(model)
    one.add(batch)
    finish(batch)
    handle.remove()
    assert one.told.text == spelled(wanted)
    assert all(torch.equal(a, b) for a, b in zip(plain, logits, strict=False))
    assert len(logits) in (len(plain), len(plain) - 1)


def _refuse(given: dict[str, object]) -> None:
    assert given.get("attention_mask") is None
    assert given.get("position_ids") is None


def test_a_long_text_does_not_pad_the_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["llama"]
    batch = batch_of(model, rows=4)
    batch._passes.bytes = 600  # a pass costs hardly anything, so padding never pays
    long, short = Asked.of([5] * 60, max_tokens=8, seed=1), Asked.of([7], max_tokens=8, seed=2)
    long.add(batch)
    batch.step()
    short.add(batch)
    batch.step()
    assert [len(group.rows) for group in batch._groups] == [1, 1]
    batch._passes.bytes = 1 << 30
    third = Asked.of([9], max_tokens=8, seed=3).add(batch)
    batch.step()
    assert sorted(len(group.rows) for group in batch._groups) == [1, 2]
    finish(batch)
    for one in (long, short, third):
        assert one.told.text == spelled(alone(model, one.ids, one.options))


def test_a_dialog_goes_on_without_being_read_again() -> None:
    for name in ("llama", "facts"):
        model = MODELS[name]
        batch = batch_of(model, prefix_bytes=1 << 20)
        first = Asked.of([5, 7, 9, 3] * 5, max_tokens=10, seed=1, logprobs=0).add(batch)
        finish(batch)
        said = [int(token.id) for token in first.told.tokens if token.id is not None]
        again = Asked.of([*first.ids, *said, 9], max_tokens=10, seed=2).add(batch)
        other = Asked.of([*first.ids[:12], 11, 12], max_tokens=10, seed=3).add(batch)
        finish(batch)
        assert isinstance(again.told.last, Finished)
        assert isinstance(other.told.last, Finished)
        assert again.told.last.usage.cached_tokens == len(first.ids) + len(said) - (len(said) == 10)
        assert other.told.last.usage.cached_tokens == 12
        for one in (again, other):
            assert one.told.text == spelled(alone(model, one.ids, one.options))


def test_facts_answer_in_a_batch_as_alone() -> None:
    model = with_marks()
    heard: list[int] = []
    banks(model)[1].listener = lambda answer: heard.append(len(answer.tokens))
    asked = [
        Asked.of(ids, max_tokens=12, seed=n)
        for n, ids in enumerate([[1, 3, 7, 9], [3], [5, 7], [4, 4, 7, 5, 5]])
    ]
    batch = batch_of(model)
    for one in asked:
        one.add(batch)
    finish(batch)
    assert heard
    for one in asked:
        assert one.told.text == spelled(alone(model, one.ids, one.options))


def test_who_fails_does_not_take_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(MODELS["llama"], prefix_bytes=0)

    def listens_badly(told: object) -> None:
        raise RuntimeError("gone")

    gone, stays = Asked.of([5, 7], max_tokens=5, seed=1), Asked.of([9, 7], max_tokens=5, seed=2)
    gone.add(batch)
    gone.row.job.__dict__["deliver"] = listens_badly
    stays.add(batch)
    finish(batch)
    assert gone.row.over
    assert stays.told.text == spelled(alone(MODELS["llama"], stays.ids, stays.options))

    def breaks(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(batch._passes, "run", breaks)
    fails = Asked.of([5, 7], max_tokens=5, seed=1).add(batch)
    finish(batch)
    assert isinstance(fails.told.last, CallError)
    assert "no memory" in str(fails.told.last)
    monkeypatch.undo()
    works = Asked.of([9, 7], max_tokens=5, seed=2).add(batch)
    finish(batch)
    assert works.told.text == stays.told.text


def test_logits_that_are_no_numbers_end_one_text_only() -> None:
    model = tiny_model("llama")
    batch = batch_of(model, prefix_bytes=1 << 20)
    bad, good = Asked.of([5, 7] * 5, max_tokens=5, seed=1), Asked.of([9, 7] * 5, max_tokens=5, seed=2)
    for one in (bad, good):
        one.add(batch)

    def spoil(_: object, __: object, output: CausalLMOutputWithPast) -> None:
        if len(output.logits) == 2:
            output.logits[0] = torch.nan

    handle = model.register_forward_hook(spoil)
    batch.step()
    handle.remove()
    finish(batch)
    assert isinstance(bad.told.last, CallError)
    assert good.told.text == spelled(alone(model, good.ids, good.options))
    assert len(batch.prefixes) == 1


def test_a_text_ends_where_the_context_ends() -> None:
    batch = batch_of(MODELS["llama"])
    one = Asked.of([5] * (LONGEST - 3), max_tokens=50, seed=1).add(batch)
    finish(batch)
    assert (one.told.reason, one.row.said) == ("length", 3)


def test_stops_and_limits_and_ends() -> None:
    model = MODELS["llama"]
    whole = spelled(alone(model, [5, 7], Options(max_tokens=40, temperature=1.0, seed=4)))
    asked = Asked.of([5, 7], max_tokens=40, seed=4, stop=(whole[5:7],))
    batch = batch_of(model)
    asked.add(batch)
    finish(batch)
    assert asked.told.text == whole[: whole.index(whole[5:7])]
    assert asked.told.reason == "stop"
    ends = Batch(model, Grammars(words(), VOCAB, frozenset()))
    from mindset.llm.engine.job import Job
    from mindset.llm.engine.row import Row

    told = Told()
    letter = ord(whole[3]) - 97 if whole[3].islower() else ord(whole[3]) - 65 + 26
    options = Options(max_tokens=40, temperature=1.0, seed=4)
    ends.add(Row(Job((5, 7), told, options), words(), frozenset([letter]), LONGEST))
    finish(ends)
    assert told.text == whole[: whole.index(whole[3])]
    assert told.reason == "stop"


def test_models_whose_texts_cannot_share_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr(type(model.config), "attention_chunk_size", 4, raising=False)
    batch = batch_of(model, rows=4)
    monkeypatch.undo()
    asked = [Asked.of([5 + n, 7], max_tokens=6, seed=n).add(batch) for n in range(3)]
    batch.step()
    assert batch.running == 1
    finish(batch)
    assert [one.told.text for one in asked] == [spelled(alone(model, one.ids, one.options)) for one in asked]


def test_hooks_are_taken_off() -> None:
    model: PreTrainedModel = tiny_model("gpt2")
    batch = batch_of(model)
    assert len(model.get_output_embeddings()._forward_pre_hooks) == 1
    batch.close()
    assert len(model.get_output_embeddings()._forward_pre_hooks) == 0


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    model = MODELS["llama"]
    batch = batch_of(model, rows=4, piece=4, lone_piece=4)
    long, short = Asked.of([5] * 100, max_tokens=4, seed=1), Asked.of([7, 9], max_tokens=4, seed=2)
    long.add(batch)
    batch.step()
    short.add(batch)
    for _ in range(3):
        batch.step()
    assert short.told.pieces
    assert not long.told.pieces
    finish(batch)
    for one in (long, short):
        assert one.told.text == spelled(alone(model, one.ids, one.options))


def test_an_error_ends_whoever_is_there() -> None:
    batch = batch_of(MODELS["llama"], rows=2, piece=2, lone_piece=2)
    asked = [Asked.of([5] * n, max_tokens=20, seed=n).add(batch) for n in (1, 30, 2, 3)]
    for _ in range(3):
        batch.step()
    batch.fail(CallError("over"))
    assert [str(one.told.last) for one in asked] == ["over"] * 4
    assert not batch.step()
