"""Equations (1), (4), (6) and (7) against hand-worked values, plain loops and finite differences."""

import math

import numpy as np
import pytest
import torch

from wtal.config.training import LossSettings
from wtal.models.branch import BranchOutput, attended, log_complement, masked_min_max, squash
from wtal.models.losses import bag_cross_entropy
from wtal.training.distillation import (
    coverage,
    distillation_loss,
    foreground_background_loss,
    keep_background,
    taught_loss,
    ternary_labels,
)


def test_bag_cross_entropy_is_the_hand_value():
    # softmax of (ln 1, ln 2, ln 5) is (1/8, 2/8, 5/8)
    logit = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).log()[None]
    one = bag_cross_entropy(logit, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    two = bag_cross_entropy(logit, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))
    assert one.item() == pytest.approx(-math.log(5 / 8), abs=1e-12)
    assert two.item() == pytest.approx(-(math.log(1 / 8) + math.log(2 / 8)) / 2, abs=1e-12)


def test_bag_cross_entropy_gradient():
    logit = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: bag_cross_entropy(z, label), logit)
    # closed form: softmax minus normalised target, over B
    bag_cross_entropy(logit, label).backward()
    expected = (logit.detach().softmax(-1) - label / label.sum(-1, keepdim=True)) / 3
    torch.testing.assert_close(logit.grad, expected)


def test_ternary_labels_follow_equation_4_at_its_edges():
    p = torch.tensor([[[0.31, 0.9], [0.3, 0.9], [0.1, 0.05], [0.09, 0.2], [0.99, 0.99]]])
    label = torch.tensor([[1.0, 0.0]])
    mask = torch.tensor([[True, True, True, True, False]])
    got = ternary_labels(p, label, mask, high=0.3, low=0.1)
    # p = 0.3 and p = 0.1 are neither above nor below; an absent class is background whatever p; padding is uncertain
    assert got.tolist() == [[[1, 0], [-1, 0], [-1, 0], [0, 0], [-1, -1]]]
    shares = coverage(got, label, mask)
    assert shares == {"foreground": 0.25, "background": 0.25, "uncertain": 0.5}


def _plain_loop_kd(p, h, y, balance):
    groups: dict[str, list[float]] = {"fg": [], "own": [], "absent": []}
    for b, t, c in np.ndindex(p.shape):
        if h[b, t, c] == 1:
            groups["fg"].append(-math.log(p[b, t, c]))
        elif h[b, t, c] == 0:
            groups["own" if y[b, c] else "absent"].append(-math.log(1 - p[b, t, c]))
    if balance == "classes":
        groups = {"own": groups["fg"] + groups["own"], "absent": groups["absent"]}
    if balance != "plain":
        return np.mean([np.mean(values) for values in groups.values() if values])
    return np.mean(sum(groups.values(), []))


@pytest.mark.parametrize("balance", ["balanced", "classes", "plain"])
def test_distillation_equals_a_plain_loop(balance):
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(3, 7, 4)))
    y = torch.from_numpy(rng.integers(0, 2, size=(3, 4)).astype(float))
    p = z.sigmoid()
    h = ternary_labels(p.roll(1, 1), y, torch.ones(3, 7, dtype=torch.bool), 0.6, 0.4)
    got = distillation_loss(*squash(z, "sigmoid"), h, y, balance)
    assert got.item() == pytest.approx(_plain_loop_kd(p.numpy(), h.numpy(), y.numpy(), balance))


@pytest.mark.parametrize("balance", ["balanced", "classes", "plain"])
@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_distillation_gradient(balance, kind):
    z = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0, 0, 1], [0, 1, 0]], dtype=torch.float64)
    h = torch.randint(-1, 2, (2, 5, 3), dtype=torch.int8)
    assert torch.autograd.gradcheck(lambda x: distillation_loss(*squash(x, kind), h, y, balance), z)


def test_distillation_of_nothing_confident_is_zero_with_zero_gradient():
    z = torch.randn(1, 3, 2, requires_grad=True)
    h = torch.full((1, 3, 2), -1, dtype=torch.int8)
    loss = distillation_loss(*squash(z, "sigmoid"), h, torch.ones(1, 2))
    loss.backward()
    assert loss.item() == 0 and z.grad.abs().sum() == 0


def test_distillation_is_smallest_where_p_equals_the_label():
    h = torch.tensor([[[1, 0]]], dtype=torch.int8)
    y = torch.ones(1, 2)
    good = distillation_loss(*squash(torch.tensor([[[9.0, -9.0]]]), "sigmoid"), h, y)
    bad = distillation_loss(*squash(torch.tensor([[[-9.0, 9.0]]]), "sigmoid"), h, y)
    assert good < 1e-3 < 8 < bad


def _plain_loop_fb(f, h, y, tau):
    B, T, C = h.shape
    frames = [(b, t) for b in range(B) for t in range(T)]
    unit = {k: f[k] / np.linalg.norm(f[k]) for k in frames}
    classes = {k: {c for c in range(C) if h[(*k, c)] == 1 and y[k[0], c]} for k in frames}
    background = [k for k in frames if not classes[k] and all(h[(*k, c)] == 0 or not y[k[0], c] for c in range(C))]
    losses = []
    for i in frames:
        positive = [m for m in frames if m != i and classes[i] & classes[m]]
        if not positive:
            continue
        top = sum(math.exp(unit[i] @ unit[m] / tau) for m in positive)
        losses.append(-math.log(top / (top + sum(math.exp(unit[i] @ unit[j] / tau) for j in background))))
    return losses


def test_contrast_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    f = rng.normal(size=(3, 6, 5))
    y = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
    h = rng.integers(-1, 2, size=(3, 6, 3)).astype(np.int8)
    losses = _plain_loop_fb(f, h, y, 0.5)
    for reduction, expected in (("mean", np.mean(losses)), ("sum", np.sum(losses))):
        tensors = torch.from_numpy(f), torch.from_numpy(h), torch.from_numpy(y).double()
        got = foreground_background_loss(*tensors, 0.5, reduction=reduction)
        assert got.item() == pytest.approx(expected, rel=1e-5)


def test_contrast_gradient():
    torch.manual_seed(0)
    f = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    h = torch.tensor([[[1, 0], [1, 1], [0, 0], [-1, 0], [0, 0]], [[1, 0], [0, 1], [0, 0], [0, -1], [1, 1]]])
    y = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: foreground_background_loss(x, h.to(torch.int8), y, 0.5), f)


def test_contrast_never_looks_at_padding():
    # a video without labels: its frames are background, what lies behind its end is not
    h = torch.tensor([[[1], [1], [0]], [[0], [-1], [-1]]], dtype=torch.int8)
    y = torch.tensor([[1.0], [0.0]])
    f = torch.randn(2, 3, 4)
    other = f.clone()
    other[1, 1:] = 5 * torch.randn(2, 4)
    assert foreground_background_loss(f, h, y) == foreground_background_loss(other, h, y)


def test_taught_loss_is_equation_5():
    torch.manual_seed(0)
    logit, feature = torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    y = torch.tensor([[1.0, 0, 0], [1, 0, 0]])
    mask = torch.ones(2, 4, dtype=torch.bool)
    h = ternary_labels(torch.tensor([0.9, 0.9, 0.1, 0.5])[None, :, None].expand(2, 4, 3), y, mask, 0.6, 0.4)
    output = BranchOutput(logit, *squash(logit, "sigmoid"), feature)
    kd = distillation_loss(output.log_p_BTC, output.log_not_p_BTC, h, y)
    fb = foreground_background_loss(feature, h, y, 0.5)
    assert kd > 0 and fb > 0
    loss, terms = taught_loss(output, h, y, LossSettings(fb=0.05, temperature=0.5))
    assert terms == {"kd": kd, "fb": fb} and loss.item() == pytest.approx((kd + 0.05 * fb).item(), rel=1e-6)
    for settings, expected in ((LossSettings(kd=2, fb=0), 2 * kd), (LossSettings(kd=0, fb=3, temperature=0.5), 3 * fb)):
        loss, terms = taught_loss(output, h, y, settings)
        assert len(terms) == 1 and loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_contrast_hand_case_and_gradient():
    # anchors a, b (same class) at cosine 1, background at cosine 0, tau 1: -log(e / (e + 1)) each
    f = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64, requires_grad=True)
    h = torch.tensor([[[1], [1], [0]]], dtype=torch.int8)
    y = torch.ones(1, 1, dtype=torch.float64)
    loss = foreground_background_loss(f, h, y, 1.0)
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-6)
    loss.backward()
    step = f.detach() - 0.1 * f.grad
    assert foreground_background_loss(step, h, y, 1.0) < loss


@pytest.mark.parametrize("labels", [[[1], [0], [0]], [[0], [0], [0]], [[-1], [-1], [-1]], [[1], [1], [-1]]])
def test_contrast_without_positives_or_negatives_is_finite(labels):
    f = torch.randn(1, 3, 4, requires_grad=True)
    loss = foreground_background_loss(f, torch.tensor([labels], dtype=torch.int8), torch.ones(1, 1))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(f.grad).all()
    # one anchor alone has no positive; two anchors without background have ratio 1
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_contrast_samples_above_its_limit_with_the_generator_alone():
    f, h = torch.randn(1, 50, 4), torch.ones(1, 50, 1, dtype=torch.int8)
    h[:, 25:] = 0
    draw = [
        foreground_background_loss(f, h, torch.ones(1, 1), max_frames=8, generator=torch.Generator().manual_seed(s))
        for s in (3, 3, 4)
    ]
    assert draw[0] == draw[1] != draw[2]


def test_log_complement_and_attention_are_finite_at_the_limits():
    logit = torch.tensor([[[200.0, -200.0]]], requires_grad=True)
    for kind in ("sigmoid", "softmax"):
        log_p, log_not_p = attended(logit, torch.tensor([[1.0]]), kind)
        (log_p.sum() + log_not_p.sum()).backward()
        assert torch.isfinite(log_p).all() and torch.isfinite(log_not_p).all() and torch.isfinite(logit.grad).all()
    assert log_complement(torch.tensor([0.25]).log()).exp().item() == pytest.approx(0.75)


def test_min_max_uses_real_snippets_only():
    score = torch.tensor([[[1.0], [3.0], [2.0], [99.0]], [[5.0], [5.0], [5.0], [5.0]]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    scaled = masked_min_max(score, mask)
    assert scaled[0, :, 0].tolist() == [0, 1, 0.5, 0]
    assert scaled[1].abs().sum() == 0


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match="'tanh'"):
        squash(torch.zeros(1), "tanh")
    with pytest.raises(ValueError, match="'other'"):
        distillation_loss(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1), "other")


def test_background_that_the_student_is_sure_of_stays_background():
    teacher = [np.array([[1, 0, -1], [1, 0, -1]], dtype=np.int8).T]
    student = [np.array([[0, 1, 0], [1, 0, -1]], dtype=np.int8).T]
    (kept,) = keep_background(teacher, student)
    assert kept.T.tolist() == [[0, 0, 0], [1, 0, -1]] and kept.dtype == np.int8


def test_with_calibrated_classes_p_becomes_the_share_of_foreground():
    z = torch.zeros(1, 10, 1, requires_grad=True)
    h = torch.tensor([1] * 3 + [0] * 7, dtype=torch.int8)[None, :, None]
    for balance, gradient in (("classes", 0.5 - 0.3), ("balanced", 0.0)):
        logit = z.mean().expand(1, 10, 1)
        loss = distillation_loss(*squash(logit, "sigmoid"), h, torch.ones(1, 1), balance)
        (got,) = torch.autograd.grad(loss, z)
        assert got.sum().item() == pytest.approx(gradient, abs=1e-6)
