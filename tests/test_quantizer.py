"""The quantizer of the tokenizer: bits, gradients, entropy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokcodec.tokenizer.lfq import entropy_terms, pack_bits, signs, straight_through, unpack_bits


@given(st.lists(st.integers(0, (1 << 18) - 1), min_size=6, max_size=6))
def test_packing_bits_is_reversible(values: list[int]):
    indices = torch.tensor(values).view(2, 3)
    bits = unpack_bits(indices, 18)
    assert bits.shape == (18, 2, 3)
    torch.testing.assert_close(pack_bits(bits), indices)


def test_lfq_follows_the_paper():
    z = torch.tensor([0.5, -0.1, 0.0, 3.0]).view(1, 4, 1, 1)
    assert signs(z).flatten().tolist() == [1, -1, -1, 1], "the sign of 0 is -1"
    assert int(pack_bits(z[0] > 0)) == 0b1001, "bit 1 is the least significant"


def test_the_gradient_passes_straight_through():
    z = torch.randn(1, 4, 2, 2, requires_grad=True)
    quantized = straight_through(z)
    assert set(quantized.detach().flatten().tolist()) <= {1.0, -1.0}
    (quantized * 3).sum().backward()
    torch.testing.assert_close(z.grad, torch.full_like(z, 3.0))


def test_entropy_terms_at_their_extremes():
    sure = torch.where(torch.rand(1, 12, 32, 32) < 0.5, 5.0, -5.0)
    certainty, diversity = entropy_terms(sure)
    assert float(certainty) < 1e-3
    assert float(diversity) == pytest.approx(math.log(2), rel=0.02)
    certainty, diversity = entropy_terms(torch.zeros(1, 12, 8, 8))
    assert float(certainty) == pytest.approx(math.log(2), rel=1e-3)
    certainty, diversity = entropy_terms(torch.full((1, 12, 8, 8), 5.0))
    assert float(diversity) < 1e-3, "one code for all has no entropy"


def test_groups_see_bits_that_depend_on_each_other():
    first = torch.tensor([5.0, 5.0, -5.0, -5.0]).view(4, 1, 1, 1)
    second = torch.tensor([5.0, -5.0, 5.0, -5.0]).view(4, 1, 1, 1)
    independent, dependent = torch.cat([first, second], dim=1), torch.cat([first, first], dim=1)
    for latents, joint in ((independent, 2.0), (dependent, 1.0)):
        alone, together = (entropy_terms(latents, group=group) for group in (1, 2))
        assert float(alone[1]) == pytest.approx(math.log(2), abs=1e-3), "each bit is even"
        assert float(together[1]) == pytest.approx(joint * math.log(2) / 2, abs=1e-3), "two bits, four or two codes"
        assert float(together[0]) == float(alone[0]) < 1e-3
    three = torch.cat([first, first, first], dim=1)
    assert float(entropy_terms(three, group=2)[1]) == pytest.approx(2 * math.log(2) / 3, abs=1e-3), (
        "a group of two, one"
    )
