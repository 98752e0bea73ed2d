"""Marks of subjects: they go where the tokens go, through caches that are cropped, reordered and begun too early."""

from __future__ import annotations

import pytest
import torch
from graft.tiny import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from mindset.errors import UsageError
from mindset.graft.convert import build_student
from mindset.graft.model import banks
from mindset.graft.mounting import follow, unmount, without_overlays
from mindset.graft.plan import ConversionPlan
from mindset.graft.radius import Answer, RadiusShard
from mindset.graft.trail import ANY_TOKEN, REACH_BACK
from mindset.probe.speed import cache_name

SUBJECT, MARK = 7, 123456789012345


def with_marks(family: str = "llama") -> PreTrainedModel:
    """A tiny model that knows one subject, the token SUBJECT, and answers everywhere behind it."""
    model = build_student(tiny_model(family).eval(), ConversionPlan())
    low, high = banks(model)[0], banks(model)[1]
    seen: list[Tensor] = []
    handle = low.register_forward_pre_hook(lambda _, args: seen.append(args[0].reshape(-1, low.d_model)))
    with torch.no_grad():
        model(torch.tensor([[SUBJECT]]), use_cache=False)
        model(torch.tensor([[1, 3, SUBJECT, 9, SUBJECT]]), use_cache=False)
    handle.remove()
    (first,), others = seen[0], seen[1]
    middles = torch.stack([first, others[2], others[4]])
    key = middles / middles.square().sum(-1, keepdim=True)
    low.mount("x", RadiusShard(key, torch.full((3,), -0.999), mark=torch.full((3,), MARK, dtype=torch.int64)))
    value = 3 * torch.ones(1, high.d_model)
    always = torch.zeros(1, high.d_model)
    high.mount("x", RadiusShard(always, torch.ones(1), value, after=torch.tensor([MARK])))
    follow(model)
    return model


@torch.no_grad()
def steps(model: PreTrainedModel, ids: Tensor, cuts: list[int]) -> Tensor:
    """The logits of texts that are read in pieces, each from the cache of those before."""
    cache, said = None, []
    for start, stop in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        out = model(ids[:, start:stop], use_cache=True, **{CACHE: cache})
        cache = out[CACHE]
        said.append(out.logits)
    return torch.cat(said, dim=1)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_read_in_pieces_as_in_one(data: st.DataObject) -> None:
    model = MODEL
    rows = data.draw(st.integers(1, 3))
    length = data.draw(st.integers(2, 12))
    ids = torch.tensor(
        [
            data.draw(st.lists(st.sampled_from([3, 5, SUBJECT]), min_size=length, max_size=length))
            for _ in range(rows)
        ]
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1))))
    whole = model(ids, use_cache=False).logits.detach()
    torch.testing.assert_close(steps(model, ids, cuts), whole, rtol=1e-4, atol=1e-4)


def test_only_texts_that_met_the_subject_are_changed() -> None:
    ids = torch.tensor([[1, 3, SUBJECT, 9, 4, 4], [1, 3, 5, 9, 4, 4]])
    with torch.no_grad():
        now = MODEL(ids, use_cache=False).logits
        with without_overlays(MODEL):
            before = MODEL(ids, use_cache=False).logits
    assert torch.equal(now[0, :2], before[0, :2])
    assert (now[0, 2:] - before[0, 2:]).abs().amax(-1).min() > 1e-3
    assert torch.equal(now[1], before[1])


def test_a_mark_is_forgotten() -> None:
    ids = torch.tensor([[1, 3, SUBJECT] + [4] * (REACH_BACK + 3)])
    heard: list[int] = []
    banks(MODEL)[1].listener = lambda answer: heard.extend(answer.tokens.tolist())
    with torch.no_grad():
        steps(MODEL, ids, [2, 5, REACH_BACK])
        heard.clear()
        MODEL(ids, use_cache=False)
    banks(MODEL)[1].listener = None
    assert heard == list(range(2, 3 + REACH_BACK))


def test_caches_are_reordered_and_cropped() -> None:
    ids = torch.tensor([[1, 3, SUBJECT, 9], [1, 3, 5, 9]])
    more = torch.tensor([[4], [4]])
    with torch.no_grad():
        cache = MODEL(ids, use_cache=True)[CACHE]
        cache.reorder_cache(torch.tensor([1, 0]))
        said = MODEL(more, use_cache=True, **{CACHE: cache}).logits
        swapped = MODEL(torch.cat([ids.flip(0), more], dim=1), use_cache=False).logits[:, -1:]
        torch.testing.assert_close(said, swapped, rtol=1e-4, atol=1e-4)
        cache.crop(-3)
        said = MODEL(more, use_cache=True, **{CACHE: cache}).logits
        cropped = MODEL(torch.cat([ids.flip(0)[:, :2], more], dim=1), use_cache=False).logits[:, -1:]
        torch.testing.assert_close(said, cropped, rtol=1e-4, atol=1e-4)


def test_beams_and_samples_as_without_a_cache() -> None:
    ids = torch.tensor([[1, 3, SUBJECT]])
    wanted = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    for beams in (1, 3):
        with_cache = MODEL.generate(ids, num_beams=beams, use_cache=True, **wanted)
        assert torch.equal(with_cache, MODEL.generate(ids, num_beams=beams, use_cache=False, **wanted))


def test_a_cache_from_before_the_mounting_has_no_marks() -> None:
    model = MODEL
    overlays = {bank: bank.overlays["x"] for bank in banks(model).values() if bank.overlays}
    with without_overlays(model), torch.no_grad():
        cache = model(torch.tensor([[1, 3]]), use_cache=True)[CACHE]
    assert all(bank.overlays["x"] is shard for bank, shard in overlays.items())
    heard: list[int] = []
    banks(model)[1].listener = lambda answer: heard.extend(answer.tokens.tolist())
    with torch.no_grad():
        model(torch.tensor([[SUBJECT, 4]]), use_cache=True, **{CACHE: cache})
        model(torch.tensor([[4]]), use_cache=True, **{CACHE: cache})
    banks(model)[1].listener = None
    assert heard == [0, 1, 0]


def test_nothing_is_followed_when_nothing_waits() -> None:
    model = with_marks()
    body = model.base_model
    hooks = len(body._forward_pre_hooks)
    unmount(model, "x")
    assert len(body._forward_pre_hooks) == hooks - 1
    assert all(bank.trail is None for bank in banks(model).values())


def test_slots_that_wait_need_a_trail() -> None:
    shard = RadiusShard(torch.zeros(1, 4), torch.ones(1), torch.ones(1, 4), after=torch.tensor([1]))
    with pytest.raises(UsageError, match="no trail is followed"):
        shard.nearest(torch.zeros(2, 4))


def leaning() -> PreTrainedModel:
    """As `with_marks`, but the slot never answers, and leans to token 9 by 2 nats."""
    model = with_marks()
    high = banks(model)[1]
    never = RadiusShard(
        torch.zeros(1, high.d_model),
        -torch.ones(1),
        torch.ones(1, high.d_model),
        after=torch.tensor([MARK]),
        token=torch.tensor([9]),
        lean=torch.tensor([2.0]),
    )
    high.mount("x", never)
    return model


@torch.no_grad()
def test_a_slot_leans_from_the_subject_until_its_word_is_said() -> None:
    model = leaning()
    ids = torch.tensor([[1, 3, SUBJECT, 4, 9, 4], [1, 3, 5, 4, 9, 4]])
    now = model(ids, use_cache=False).logits
    last = model(ids, use_cache=False, logits_to_keep=4).logits
    with without_overlays(model):
        before = model(ids, use_cache=False).logits
    moved = now - before
    torch.testing.assert_close(moved[0, :, 9], torch.tensor([0, 0, 2.0, 2.0, 0, 0]), rtol=0, atol=1e-5)
    assert moved[..., :9].abs().max() == 0
    assert torch.equal(now[1], before[1])
    torch.testing.assert_close(last, now[:, -4:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(steps(model, ids, [3, 4, 5]), now, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_slot_answers_until_its_word_is_said() -> None:
    model = with_marks()
    high = banks(model)[1]
    always = torch.zeros(1, high.d_model), torch.ones(1), torch.ones(1, high.d_model)
    high.mount(
        "x", RadiusShard(*always, after=torch.tensor([MARK]), until=torch.tensor([9], dtype=torch.int32))
    )
    heard: list[int] = []
    high.listener = lambda answer: heard.extend(answer.tokens.tolist())
    model(torch.tensor([[1, 3, SUBJECT, 4, 9, 4, 4], [9, 3, 5, 4, 9, 4, 4]]), use_cache=False)
    assert heard == [2, 3]
    heard.clear()
    steps(model, torch.tensor([[1, 3, SUBJECT, 4, 9, 4, 4]]), [1, 2, 3, 4, 5, 6])
    assert heard == [0, 0]


@torch.no_grad()
def test_a_mute_slot_does_not_lean_and_one_that_leans_is_told() -> None:
    model = leaning()
    ids = torch.tensor([[1, 3, SUBJECT, 4]])
    heard: list[float] = []
    banks(model)[1].listener = lambda answer: heard.extend(answer.margins.tolist())
    model(ids, use_cache=False)
    assert heard == [0.0, 0.0]
    banks(model)[1].overlays["x"].muted = {0}
    now = model(ids, use_cache=False).logits
    with without_overlays(model):
        assert torch.equal(now, model(ids, use_cache=False).logits)


SPELLINGS = (
    ((SUBJECT, 3, ANY_TOKEN), (5, 5, 5)),
    ((SUBJECT, ANY_TOKEN, 5), (SUBJECT, ANY_TOKEN, 5)),
    ((3, 3, 3), (3, 5, ANY_TOKEN)),
)


def spelling() -> PreTrainedModel:
    """Slots that answer every token that ends as one of `SPELLINGS`, and nothing else."""
    model = build_student(tiny_model("llama").eval(), ConversionPlan())
    low = banks(model)[0]
    count = len(SPELLINGS)
    marks = torch.arange(1, count + 1)
    margins = torch.tensor([0.2, 0.3, 0.1])
    keys = torch.zeros(count, low.d_model)
    spelled = torch.tensor(SPELLINGS, dtype=torch.int32)
    low.mount("x", RadiusShard(keys, margins, mark=marks, spelled=spelled))
    follow(model)
    return model


def _ends(tail: list[int], way: tuple[int, ...]) -> bool:
    return all(want == ANY_TOKEN or tail[back : back + 1] == [want] for back, want in enumerate(way))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_slots_answer_only_where_the_text_is_spelled_so(data: st.DataObject) -> None:
    """As comparing ends of lists would; of two the nearer one; in pieces as in one."""
    length = data.draw(st.integers(1, 9))
    texts = st.lists(st.sampled_from([3, 5, SUBJECT]), min_size=length, max_size=length)
    rows = [data.draw(texts) for _ in range(data.draw(st.integers(1, 2)))]
    wanted = {}
    for row, text in enumerate(rows):
        for place in range(length):
            tail = text[: place + 1][::-1]
            ends = [any(_ends(tail, way) for way in ways) for ways in SPELLINGS]
            if any(ends):
                wanted[row, place] = max(
                    (i for i, it in enumerate(ends) if it), key=lambda i: (0.2, 0.3, 0.1)[i]
                )
    heard: dict[tuple[int, int], int] = {}
    start, width = 0, length
    bank = banks(SPELLING)[0]

    def hear(answer: Answer) -> None:
        for token, slot in zip(answer.tokens.tolist(), answer.slots.tolist(), strict=True):
            heard[token // width, start + token % width] = slot

    bank.listener = hear
    ids = torch.tensor(rows)
    with torch.no_grad():
        SPELLING(ids, use_cache=False)
        assert heard == wanted
        heard.clear()
        cuts = sorted(data.draw(st.sets(st.integers(1, max(1, length - 1)))) - {length})
        cache = None
        for start, stop in zip([0, *cuts], [*cuts, length], strict=True):
            width = stop - start
            cache = SPELLING(ids[:, start:stop], use_cache=True, **{CACHE: cache})[CACHE]
        assert heard == wanted
    bank.listener = None


@torch.no_grad()
def test_vectors_have_no_spelling_to_ask_for() -> None:
    heard: list[int] = []
    banks(SPELLING)[0].listener = lambda answer: heard.extend(answer.tokens.tolist())
    given = SPELLING.get_input_embeddings()(torch.tensor([[9, 4]]))
    SPELLING(inputs_embeds=given, use_cache=False)
    banks(SPELLING)[0].listener = None
    assert heard == [1]  # the first token has too few before it


MODEL = with_marks()
SPELLING = spelling()
CACHE = cache_name(MODEL)
