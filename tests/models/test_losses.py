"""Bag and bag+instance losses against their formulas in plain arithmetic, and what they do to learnt
exponents."""

import math

import pytest
import torch

from wtal.models.losses import (
    bag_instance_loss,
    bag_instance_terms,
    binary_bag_loss,
    class_summed_loss,
)
from wtal.models.pooling.head import POOLINGS, make_pooling

HEADS = [name for name in POOLINGS if not POOLINGS[name].needs_features]


def batch(seed=0, videos=3, time=6, classes=4):
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(videos, time, classes, generator=generator, dtype=torch.float64)
    mask = torch.ones(videos, time, dtype=torch.bool)
    mask[1, 4:] = False
    label = (torch.rand(videos, classes, generator=generator) < 0.4).double()
    label[0, 0], label[0, 1] = 1, 0
    return z, mask, label


def head(name, **options):
    return make_pooling(name, 4, **({"space": "prob"} if name == "topk" else {}), **options).double()


def test_bag_losses_are_binary_cross_entropy():
    z, mask, label = batch()
    pooled = head("mean")(z, mask)
    expected = torch.nn.functional.binary_cross_entropy(pooled.log_p_BC.exp(), label)
    torch.testing.assert_close(binary_bag_loss(pooled, label), expected)
    torch.testing.assert_close(class_summed_loss(pooled, label), expected * 4)
    # labels that were normalised for a softmax still count as positive
    torch.testing.assert_close(binary_bag_loss(pooled, label / 3), expected)


@pytest.mark.parametrize("name", HEADS)
def test_bag_instance_loss_is_its_formula(name):
    z, mask, label = batch()
    pooled = head(name)(z, mask)
    total = 0.0
    for b in range(3):
        for c in range(4):
            q = z[b, mask[b], c].sigmoid()
            p = pooled.log_p_BC[b, c].exp()
            if label[b, c]:
                u = (q >= 0.5).double()
                certainty = (-(u * q.log() + (1 - u) * (1 - q).log())).mean()
                assert 0 <= certainty <= math.log(2)
                total += -p.log() + 0.3 * (-p.log() - certainty) ** 2
            else:
                total += -(1 - q).log().mean()
    torch.testing.assert_close(bag_instance_loss(pooled, label, mask, 0.3), total / 12)


def test_negative_bags_reach_the_frames_but_not_the_head():
    z, mask, label = batch()
    z.requires_grad_()
    pooling = head("generalized_mean", exponent_init=2.0)
    bag_instance_loss(pooling(z, mask), torch.zeros_like(label), mask).backward()
    assert (z.grad[mask] > 0).all() and (z.grad[~mask] == 0).all()
    assert (pooling.exponent.value_C.grad == 0).all()


def test_saturated_frames_keep_the_losses_finite():
    mask = torch.ones(2, 5, dtype=torch.bool)
    for level in (-120.0, 120.0):
        z = torch.full((2, 5, 4), level, requires_grad=True)
        pooled = make_pooling("generalized_mean", 4)(z, mask)
        label = torch.tensor([[1.0] * 4, [0.0] * 4])
        (bag_instance_loss(pooled, label, mask) + binary_bag_loss(pooled, label)).backward()
        assert z.grad.isfinite().all() and z.grad.abs().sum() > 0


def test_no_video_lowers_r_while_lambda_is_small():
    # dL/dr = (1 + 2 lambda (l - R)) dl/dr, and R <= ln 2: no wrong sign below 1 / (2 ln 2) whatever the
    # frames are
    wrong = {0.7: 0, 4.0: 0}
    for weight in wrong:
        for seed in range(60):
            z, mask, label = batch(seed)
            # confident bags of undecided frames are the worst case
            z = z * (0.1 if seed % 2 else 1) + (seed % 5)
            pooling = head("generalized_mean", exponent_init=1.5)
            bag_instance_terms(pooling(z, mask), label, mask, weight).sum().backward()
            wrong[weight] += int((pooling.exponent.value_C.grad > 1e-15).sum())
    assert wrong[0.7] == 0


def test_bag_loss_of_negatives_does_lower_r():
    z, mask, label = batch()
    pooling = head("generalized_mean", exponent_init=2.0)
    binary_bag_loss(pooling(z, mask), torch.zeros_like(label)).backward()
    assert (pooling.exponent.value_C.grad > 0).all()


def test_positives_raise_n_negatives_and_the_regulariser_lower_it():
    z, mask, label = batch()
    pooling = head("power")
    binary_bag_loss(pooling(z, mask), torch.ones_like(label)).backward()
    assert (pooling.exponent.value_C.grad < 0).all()
    pooling.zero_grad()
    binary_bag_loss(pooling(z, mask), torch.zeros_like(label)).backward()
    assert (pooling.exponent.value_C.grad > 0).all()
    pooling.zero_grad()
    pooling.regulariser().backward()
    assert (pooling.exponent.value_C.grad > 0).all()
