import copy

import pytest
import torch
from graft.tiny import tiny_model, tokens
from torch import Tensor
from torch.nn import functional as F

from mindset.graft.associative import AssociativeBank, StraightThrough
from mindset.graft.convert import build_student
from mindset.graft.model import learning
from mindset.graft.plan import ConversionPlan
from mindset.graft.recording import record

GRADIENTS = ("straight-through", "scores", "frozen")


def make_bank(
    *, n_slots: int = 32, n_heads: int = 2, k: int | None = 3, filled: int = 12, **more
) -> AssociativeBank:
    """A bank in float64, part of it filled with drawn pairs."""
    generator = torch.Generator().manual_seed(0)
    bank = AssociativeBank(0, 6, n_slots=n_slots, n_heads=n_heads, d_key=4, k=k, **more).double()
    bank.reset(generator)
    with torch.no_grad():
        drawn = torch.randn(n_heads, filled, 4, dtype=torch.float64, generator=generator)
        bank.rows.key[:, :filled] = F.normalize(drawn, dim=-1)
        bank.rows.value[:, :filled] = torch.randn(
            n_heads, filled, 4, dtype=torch.float64, generator=generator
        )
        bank.size.fill_(filled)
    return bank.eval()


def make_x(n_tokens: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_tokens, 6, dtype=torch.float64, generator=generator).requires_grad_()


def state(bank: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in bank.state_dict().items()}


def same(bank: torch.nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in bank.state_dict().items())


def naive(bank: AssociativeBank, x: Tensor, *, own: bool) -> Tensor:
    """Head by head and token by token; `own`: whether a token may be novel and read its own pair too."""
    out = []
    for token in x:
        heads = []
        for h in range(bank.n_heads):
            place = slice(h * 4, h * 4 + 4)
            q, content = bank.query.weight[place] @ token, bank.content.weight[place] @ token
            key = F.normalize(bank.lookup.weight[place] @ token, dim=0)
            filled = int(bank.size[h])
            near = [float(key.detach().dot(bank.rows.key[h, i].detach())) for i in range(filled)]
            best = sorted(range(filled), key=lambda i: -near[i])[: bank.k]
            pairs = [(q.dot(bank.rows.key[h, i]), bank.rows.value[h, i]) for i in best]
            if bank.gradient == "scores":
                pairs = [(s + key.dot(bank.rows.key[h, i]), v) for (s, v), i in zip(pairs, best, strict=True)]
            if not pairs or (own and max(near) < bank.novelty):
                pairs.append((q.dot(key), content))
            total = sum(score.exp() for score, _ in pairs)
            heads.append(sum(score.exp() / total * value for score, value in pairs))
        out.append(bank.output.weight @ torch.cat(heads) + bank.output.bias)
    return torch.stack(out)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("filled", [0, 1, 12])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("k", [1, 3, None])
def test_reading_is_the_naive_formula(gradient, filled, training, k):
    bank = make_bank(filled=filled, gradient=gradient, k=k).train(training)
    x = make_x()
    before = copy.deepcopy(bank)
    torch.testing.assert_close(bank(x), naive(before, x, own=training))


# ---- gradients
def test_straight_through_is_its_definition():
    generator = torch.Generator().manual_seed(0)
    lookup, keys = (
        torch.randn(n, 4, dtype=torch.float64, generator=generator).requires_grad_() for n in (5, 9)
    )
    slots = torch.tensor([[0, 1], [1, 2], [8, 0], [3, 3], [4, 5]])
    returned = StraightThrough.apply(lookup, keys, slots)
    assert torch.equal(returned, keys[slots])
    d_returned = torch.randn(5, 2, 4, dtype=torch.float64, generator=generator)
    d_lookup, d_keys = torch.autograd.grad(returned, (lookup, keys), d_returned)
    torch.testing.assert_close(d_lookup, d_returned.sum(1))
    wanted = torch.zeros_like(keys)
    for token in range(5):
        for place in range(2):
            wanted[slots[token, place]] += d_returned[token, place]
    torch.testing.assert_close(d_keys, wanted)


def test_straight_through_in_the_bank_gives_the_lookup_the_sum_of_the_returned_keys_gradients(monkeypatch):
    bank = make_bank(n_heads=1)
    caught = []

    def apply(lookup: Tensor, keys: Tensor, slots: Tensor) -> Tensor:
        lookup.retain_grad()
        returned = original(lookup, keys, slots)
        returned.retain_grad()
        caught.append((lookup, returned))
        return returned

    original = StraightThrough.apply
    monkeypatch.setattr(StraightThrough, "apply", apply)
    bank(make_x()).square().sum().backward()
    ((lookup, returned),) = caught
    assert returned.grad.abs().sum() > 0
    torch.testing.assert_close(lookup.grad, returned.grad.sum(1))


def test_written_key_and_value_have_the_gradients_of_what_their_writer_read(monkeypatch):
    """dKeyInserted = dKeyReturned and dValueInserted = dValueReturned: the own pair is one more pair that came back."""
    bank = make_bank(n_heads=1, filled=0, novelty=2.0).train()
    x = make_x(1)
    # An empty memory and one token: all that comes back is what it writes, with attention 1.
    bank(x).sum().backward()
    assert int(bank.size[0]) == 1
    d_mixed = bank.output.weight.detach().sum(0)
    torch.testing.assert_close(bank.content.weight.grad, torch.outer(d_mixed, x.detach()[0]))

    bank = make_bank(n_heads=1, novelty=2.0).train()
    reader = copy.deepcopy(bank)
    bank(x).sum().backward()
    assert int(bank.size[0]) == 13
    # The same read with the pair already stored, by definition: its row's gradients are the written pair's.
    q, key, content = (linear(x.detach())[0] for linear in (reader.query, reader.lookup, reader.content))
    key = F.normalize(key, dim=0).detach().requires_grad_()
    content = content.detach().requires_grad_()
    best = (reader.rows.key[0, :12] @ key).topk(3).indices
    keys, values = (torch.cat([t[0, best].detach(), own[None]]) for t, own in (
        (reader.rows.key, key), (reader.rows.value, content),
    ))  # fmt: skip
    returned = keys[:3].detach().requires_grad_()
    score = torch.cat([returned, keys[3:]]) @ q.detach()
    out = reader.output.weight.detach() @ (score.softmax(-1) @ values)
    d_returned, d_key, d_content = torch.autograd.grad(out.sum(), (returned, key, content))
    torch.testing.assert_close(bank.content.weight.grad, torch.outer(d_content, x.detach()[0]))
    raw = reader.lookup(x.detach())[0].detach().requires_grad_()
    (d_raw,) = torch.autograd.grad(F.normalize(raw, dim=0), raw, d_key + d_returned.sum(0))
    torch.testing.assert_close(bank.lookup.weight.grad, torch.outer(d_raw, x.detach()[0]))


def test_scores_are_an_ordinary_gradient_through_what_was_selected():
    bank = make_bank(gradient="scores")
    x = make_x()
    named = dict(bank.named_parameters())
    one = torch.autograd.grad(bank(x).square().sum(), list(named.values()), allow_unused=True)
    other = torch.autograd.grad(
        naive(bank, x, own=False).square().sum(), list(named.values()), allow_unused=True
    )
    for name, first, second in zip(named, one, other, strict=True):
        assert (first is None or not bool(first.any())) == (second is None or not bool(second.any())), name
        if first is not None and second is not None:
            torch.testing.assert_close(first, second, msg=lambda m, n=name: f"{n}: {m}")


def test_frozen_trains_neither_stored_keys_nor_the_lookup():
    bank = make_bank(gradient="frozen").train()
    bank(make_x()).square().sum().backward()
    for parameter in (bank.rows.key, bank.lookup.weight):
        assert parameter.grad is None or not bool(parameter.grad.any())
    assert bool(bank.rows.value.grad.any())
    assert bool(bank.query.weight.grad.any())


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_backward_survives_the_insert_of_its_own_step(gradient):
    bank = make_bank(gradient=gradient).train()
    optimizer = torch.optim.SGD(bank.parameters(), lr=0.01)
    for seed in range(4):
        optimizer.zero_grad()
        bank(make_x(seed=seed)).square().sum().backward()
        optimizer.step()
    assert int(bank.size[0]) > 12


# ---- writing
def test_reading_in_eval_changes_nothing():
    bank = make_bank()
    before = state(bank)
    for n_tokens in (1, 9):
        bank(make_x(n_tokens))
    assert same(bank, before)
    with torch.inference_mode():
        bank(make_x(9))
    assert same(bank, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_model_in_eval_inserts_inside_learning_only(mode):
    teacher = tiny_model("llama")
    student = build_student(teacher, ConversionPlan("associative", slots=40, heads=2, k=4))
    before, ids = state(student), tokens()
    student(ids)
    assert same(student, before)
    with learning(student), mode():
        student(ids)
    after = state(student)
    sizes = {name: int(t.min()) for name, t in after.items() if name.endswith("size")}
    assert sizes
    assert all(sizes.values())
    with mode():
        student(ids)
    assert same(student, after)
    assert {name: t.shape for name, t in after.items()} == {name: t.shape for name, t in before.items()}


def test_learning_ends_on_an_error():
    student = build_student(tiny_model("llama"), ConversionPlan("associative", slots=40))
    with pytest.raises(RuntimeError), learning(student):
        raise RuntimeError
    before = state(student)
    student(tokens())
    assert same(student, before)


def test_what_is_written_are_novel_tokens_keys_and_contents():
    bank = make_bank(filled=0, novelty=0.9).train()
    x = make_x(20)
    bank(x)
    for h in range(2):
        size, place = int(bank.size[h]), slice(4 * h, 4 * h + 4)
        key = F.normalize(bank.lookup(x)[:, place], dim=-1)
        written = bank.rows.key[h, :size]
        near = written @ key.T
        writer = near.argmax(-1)
        torch.testing.assert_close(near.amax(-1), torch.ones(size, dtype=torch.float64))
        torch.testing.assert_close(bank.rows.value[h, :size], bank.content(x)[writer, place])
        apart = (written @ written.T).fill_diagonal_(-1)
        assert float(apart.detach().max()) < 0.9
        assert float(near.amax(0).detach().min()) >= 0.9  # nothing novel was left out, as there was room
    known = state(bank)
    bank(x)
    assert same(bank, known)  # now everything near is known


def test_inserts_are_bounded_by_the_step_and_by_the_capacity_of_each_head():
    bank = make_bank(filled=0, n_slots=10, novelty=2.0, inserts_per_step=4).train()
    shapes = {name: t.shape for name, t in bank.state_dict().items()}
    for size in (4, 8, 10, 10):
        bank(make_x(30))
        assert bank.size.tolist() == [size, size]
    assert {name: t.shape for name, t in bank.state_dict().items()} == shapes

    bank = make_bank(filled=4, n_slots=10, novelty=2.0, inserts_per_step=64).train()
    bank.size[1] = 9
    bank(make_x(30))
    assert bank.size.tolist() == [10, 10]


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("filled", [0, 5, 31])
@pytest.mark.parametrize("inserts", [1, 64])
def test_no_token_sees_what_another_writes_in_the_same_step(gradient, filled, inserts):
    """Training too: change the later tokens, in number and in kind, and the earlier ones say the same."""
    bank = make_bank(filled=filled, gradient=gradient, novelty=0.9, inserts_per_step=inserts).train()
    x = make_x(12)
    later = make_x(12, seed=5)
    mixed = torch.cat([x[:6], later[6:]])
    near = torch.cat([x[:6], x[:6] * 1.01 + 0.01])
    outs = [copy.deepcopy(bank)(given)[:6] for given in (x, mixed, near, x[:6])]
    for other in outs[1:]:
        torch.testing.assert_close(outs[0], other, rtol=0, atol=1e-12)


def test_a_trained_model_is_causal():
    student = build_student(tiny_model("llama"), ConversionPlan("associative", slots=40, heads=2, k=4))
    with learning(student), torch.no_grad():
        student(tokens(seed=1))
    ids, other = tokens(1), tokens(1)
    other[:, 7:] = tokens(1, seed=9)[:, 7:]
    with torch.no_grad():
        one, two = (copy.deepcopy(student).train()(given).logits[:, :7] for given in (ids, other))
    torch.testing.assert_close(one, two)


# ---- recording
def test_recorded_weights_are_the_attention_over_stored_rows():
    bank = make_bank()
    bank.counter = torch.zeros(64)
    seen = []
    with record(bank, seen.append):
        out = bank(make_x(11))
    read = seen[0].weights
    assert read.shape == (11, 2, 32)
    assert int((read != 0).sum(-1).max()) <= 3
    torch.testing.assert_close(read.sum(-1), torch.ones(11, 2, dtype=torch.float64))
    mixed = torch.einsum("ths,hsd->thd", read, bank.rows.value.detach()).flatten(1)
    torch.testing.assert_close(bank.output(mixed), out)
    assert torch.equal(bank.counter, (read != 0).sum(0).flatten().float())
    torch.testing.assert_close(seen[0].output, out)
