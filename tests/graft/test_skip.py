import pytest
import torch
from torch import Tensor

from mindset.errors import UsageError
from mindset.graft.skip import AffineSkip, LowRankSkip, build_skip, parse_skip


def moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centred second and cross moments, and the means."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    return (x - mean_x).T @ (x - mean_x) / len(x), (x - mean_x).T @ (y - mean_y) / len(x), mean_x, mean_y


def data(n: int = 400, d_model: int = 5) -> tuple[Tensor, Tensor]:
    """Inputs and targets that are affine in them but for some noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d_model, dtype=torch.float64, generator=generator) + 0.5
    slope = torch.randn(d_model, d_model, dtype=torch.float64, generator=generator)
    noise = torch.randn(n, d_model, dtype=torch.float64, generator=generator)
    return x, x @ slope.T + 3.0 + 0.1 * noise


@pytest.mark.parametrize("text", ["affine", "lowrank:2"])
def test_a_new_skip_adds_nothing(text):
    skip = build_skip(text, 5, torch.Generator().manual_seed(0))
    assert torch.equal(skip(torch.randn(7, 5)), torch.zeros(7, 5))


@pytest.mark.parametrize("text", ["affine", "lowrank:5"])
def test_fit_is_least_squares(text):
    x, y = data()
    skip = build_skip(text, 5, torch.Generator().manual_seed(0)).double()
    skip.fit(*moments(x, y))
    with_one = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    best = (with_one @ torch.linalg.lstsq(with_one, y).solution - y).square().mean()
    assert (skip(x) - y).square().mean() <= best * 1.01  # the ridge costs a little


@pytest.mark.parametrize("rank", [1, 3])
def test_lowrank_fit_is_the_best_of_its_rank(rank):
    x, y = data()
    skip = LowRankSkip(5, rank, torch.Generator().manual_seed(0)).double()
    skip.fit(*moments(x, y))
    centred = y - y.mean(0)
    xc = x - x.mean(0)
    full = xc @ torch.linalg.lstsq(xc, centred).solution
    wanted = (full - centred).square().sum() + torch.linalg.svdvals(full)[rank:].square().sum()
    assert (skip(x) - y).square().sum() <= wanted * 1.01


@pytest.mark.parametrize("text", ["affine", "lowrank:2", "lowrank:5"])
def test_fitting_what_is_left_out_again_changes_next_to_nothing(text):
    x, y = data()
    skip = build_skip(text, 5, torch.Generator().manual_seed(0)).double()
    skip.fit(*moments(x, y))
    once = skip(x).detach()
    skip.fit(*moments(x, y - once))
    torch.testing.assert_close(skip(x).detach(), once, rtol=0, atol=0.05)


def test_fit_of_half_the_inputs_directions_is_finite():
    x, y = data()
    x[:, 2:] = 0
    for skip in (AffineSkip(5).double(), LowRankSkip(5, 3).double()):
        skip.fit(*moments(x, y))
        assert bool(skip(x).isfinite().all())


def test_gradients_reach_every_part():
    for text in ("affine", "lowrank:2"):
        skip = build_skip(text, 5)
        with torch.no_grad():
            for parameter in skip.parameters():
                parameter.add_(0.1)
        skip(torch.randn(3, 5)).square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in skip.parameters())


def test_a_lowrank_start_is_named_by_its_seed():
    one, two = (build_skip("lowrank:2", 5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.down, two.down)


def test_parse():
    assert parse_skip("none") == ("none", 0)
    assert parse_skip("affine") == ("affine", 0)
    assert parse_skip("lowrank:12") == ("lowrank", 12)
    assert build_skip("none", 5) is None


@pytest.mark.parametrize("text", ["lowrank", "lowrank:0", "lowrank:-1", "full", ""])
def test_parse_refuses(text):
    with pytest.raises(UsageError, match=f"'{text}' is no skip; allowed: none, affine, lowrank:R"):
        parse_skip(text)
