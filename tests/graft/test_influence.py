from __future__ import annotations

import pytest
import torch
from graft.tiny_banks import make_bank, make_x

from mindset.graft.featural import FeaturalBank
from mindset.graft.influence import located, residual_norms, residual_values
from mindset.graft.recording import Read


def test_weighted_values_add_up_to_what_the_bank_says() -> None:
    featural = FeaturalBank(0, 6, n_slots=5, n_heads=2, d_key=4).double()
    featural.reset(torch.Generator().manual_seed(0))
    for bank in (make_bank(8, 3, 6, bias=False), featural):
        reads: list[Read] = []
        bank.recorder = reads.append
        x = make_x(4, 6).detach()
        out = bank(x)
        values = residual_values(bank)
        summed = torch.einsum("ths,hsd->td", reads[0].weights, values) + bank.output_bias(x)
        torch.testing.assert_close(summed, out)
        torch.testing.assert_close(residual_norms(bank), values.float().norm(dim=-1))


def test_where_a_slot_lies() -> None:
    bank = make_bank(8, 3, 6)
    assert [located(bank, row) for row in (0, 7, 8, 10)] == [("base", 0), ("base", 7), ("new", 0), ("new", 2)]
    with pytest.raises(IndexError):
        located(bank, 11)
