"""Clustering aggregators, Context Gating, experts, two streams, and frame relevance."""

import math

import pytest
import torch

from feature_extraction.errors import UserError
from wtal.models.losses import class_summed_loss
from wtal.models.video_classifier.aggregation import AGGREGATIONS, VLAD, Aggregator, FisherVector
from wtal.models.video_classifier.gating import ClassScores, ContextGating, Logistic, MixtureOfExperts
from wtal.models.video_classifier.network import VideoClassifier, VideoClassifierSettings
from wtal.models.video_classifier.relevance import additive_decomposition, leave_one_out

B, T, D, K, C = 4, 10, 6, 5, 7
NAMES = list(AGGREGATIONS)


def data(seed=0, time=T):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, time, D, generator=generator, dtype=torch.float64)
    mask = torch.ones(B, time, dtype=torch.bool)
    if time >= 6:
        mask[1, 6:], mask[2, 3:] = False, False
    return x, mask


def aggregator(name, **options):
    torch.manual_seed(0)
    return Aggregator(name, D, K, **options).double()


def classifier(aggregation="netvlad", streams=(4, 2), **options):
    torch.manual_seed(0)
    settings = VideoClassifierSettings(aggregation=aggregation, clusters=K, hidden=8, **options)
    return VideoClassifier(settings, streams, C).double()


def test_aggregators_are_their_formulas():
    x, mask = data()
    model = aggregator("netvlad", batch_norm=False, input_norm=False)
    a = (x @ model.assignment.weight.T + model.assignment.bias).softmax(-1)
    c = torch.randn(K, D, dtype=torch.float64)
    s = torch.rand(K, D, dtype=torch.float64) + 0.5
    for b in range(B):
        vlad, first, second, counts = (torch.zeros(K, D).double() for _ in range(4))
        for t in range(T):
            if mask[b, t]:
                residual = x[b, t] - c
                vlad += a[b, t, :, None] * residual
                first += a[b, t, :, None] * residual / s
                second += a[b, t, :, None] * ((residual / s) ** 2 - 1)
                counts += a[b, t, :, None]

        def norms(m):
            return torch.nn.functional.normalize(torch.nn.functional.normalize(m, dim=1).flatten(), dim=0)

        expected = {
            "netvlad": norms(vlad),
            "netrvlad": norms(vlad + counts * c),
            "netfv": torch.cat([norms(first).view(K, D), norms(second).view(K, D)], 1).flatten(),
            "netfv_loupe": torch.cat(
                [norms(first).view(K, D), torch.nn.functional.normalize(second.flatten(), dim=0).view(K, D)],
                1,
            ).flatten(),
            "soft_dbow": torch.nn.functional.normalize(counts[:, 0], dim=0),
            "mean": x[b, mask[b]].mean(0),
        }
        for name, want in expected.items():
            model.pool = AGGREGATIONS[name](D, K).double()
            if hasattr(model.pool, "centre_KD") and model.pool.centre_KD is not None:
                model.pool.centre_KD.data.copy_(c)
            if hasattr(model.pool, "deviation_KD"):
                model.pool.deviation_KD.data.copy_((s - 1e-6).sqrt())
            torch.testing.assert_close(model(x, mask)[b], want, rtol=1e-6, atol=1e-9)
            assert model.pool.descriptor_dim == len(want)


def test_netvlad_without_centres_is_netrvlad_and_with_unit_deviation_is_first_order_netfv():
    x, mask = data()
    a = torch.rand(B, T, K, dtype=torch.float64) * mask[..., None]
    vlad = VLAD(D, K).double()
    fisher = FisherVector(D, K).double()
    fisher.centre_KD.data.copy_(vlad.centre_KD)
    fisher.deviation_KD.data.fill_(math.sqrt(1 - 1e-6))
    torch.testing.assert_close(fisher.sums(a, x)[..., :D], vlad.sums(a, x))
    vlad.centre_KD.data.zero_()
    torch.testing.assert_close(vlad.sums(a, x), VLAD(D, K, centres=False).sums(a, x))


def test_norms_of_the_descriptor():
    x, mask = data()
    v = aggregator("netvlad")(x, mask).view(B, K, D)
    torch.testing.assert_close(v.norm(dim=2), torch.full((B, K), 1 / math.sqrt(K)).double(), rtol=1e-6, atol=1e-6)
    for name in ("netvlad", "netrvlad", "soft_dbow"):
        norm = aggregator(name)(x, mask).norm(dim=1)
        torch.testing.assert_close(norm, torch.ones(B).double(), rtol=1e-6, atol=1e-6)
    for half in aggregator("netfv")(x, mask).view(B, K, 2, D).unbind(2):
        norm = half.flatten(1).norm(dim=1)
        torch.testing.assert_close(norm, torch.ones(B).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_padding_order_and_duplication(name, training):
    x, mask = data()
    model = aggregator(name).train(training)
    state = {k: v.clone() for k, v in model.state_dict().items()}

    def fresh(*inputs):
        model.load_state_dict(state)
        return model(*inputs)

    want = fresh(x, mask)
    running = {k: v.clone() for k, v in model.state_dict().items()}
    dirty = x.clone()
    dirty[~mask] = float("nan")
    longer = torch.nn.functional.pad(dirty, (0, 0, 0, 5), value=9.0)
    torch.testing.assert_close(fresh(longer, torch.nn.functional.pad(mask, (0, 5))), want)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, running[key])  # the running statistics saw no padding either
    order = torch.randperm(T)
    torch.testing.assert_close(fresh(x[:, order], mask[:, order]), want)
    torch.testing.assert_close(fresh(x.repeat_interleave(2, 1), mask.repeat_interleave(2, 1)), want)


@pytest.mark.parametrize("name", ["netvlad", "netrvlad", "netfv", "soft_dbow"])
def test_permuting_clusters_permutes_the_descriptor(name):
    x, mask = data()
    model = aggregator(name, batch_norm=False)
    before = model(x, mask).view(B, K, -1)
    order = torch.randperm(K)
    with torch.no_grad():
        for parameter in (*model.assignment.parameters(), *model.pool.parameters()):
            parameter.copy_(parameter[order].clone())
    torch.testing.assert_close(model(x, mask).view(B, K, -1), before[:, order])


@pytest.mark.parametrize("name", NAMES)
def test_single_frame_empty_video_and_empty_cluster_stay_finite(name):
    x, mask = data()
    model = aggregator(name, batch_norm=False)
    model.assignment.bias.data[0] = -1e9
    mask[0] = False
    mask[1, 1:] = False
    x.requires_grad_()
    out = model(x, mask)
    out.square().sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    single = aggregator(name).train()
    assert single(x[:1, :1], mask[2:3, :1]).isfinite().all()


def test_unknown_aggregation_names_the_known_ones():
    with pytest.raises(UserError, match="netvlad, netrvlad"):
        Aggregator("vlad", D, K)


def test_context_gating():
    x = torch.randn(9, D, dtype=torch.float64)
    for batch_norm in (True, False):
        gate = ContextGating(D, batch_norm).double()
        y = gate(x)
        assert (y.abs() <= x.abs()).all() and (y.sign() == x.sign()).all()
        gate.weight_DD.data.zero_()
        torch.testing.assert_close(gate(x), x / 2)
    gate = ContextGating(D, batch_norm=False, remove_diagonal=True).double()
    x = x[:1].clone().requires_grad_()
    slope = torch.autograd.functional.jacobian(lambda v: gate.gate_logits(v), x)[0, :, 0]
    assert (slope.diagonal() == 0).all() and (slope != 0).sum() == D * (D - 1)


def test_gating_probabilities_in_log_space():
    torch.manual_seed(0)
    gate = ContextGating(C, batch_norm=False).double()
    p = torch.rand(B, C, dtype=torch.float64)
    gated = gate.gate_scores(ClassScores(p.log(), (1 - p).log()))
    torch.testing.assert_close(gated.log_p_BC.exp(), gate(p))
    torch.testing.assert_close(gated.log_1mp_BC.exp(), 1 - gate(p))
    assert (gated.log_p_BC <= p.log()).all()


def test_mixture_of_experts():
    torch.manual_seed(0)
    x = torch.randn(B, D, dtype=torch.float64)
    for experts in (1, 2, 3):
        model = MixtureOfExperts(D, C, experts).double()
        scores = model(x)
        g = model.gate(x).view(B, C, experts + 1).softmax(-1)
        s = model.expert(x).view(B, C, experts).sigmoid()
        torch.testing.assert_close(scores.log_p_BC.exp(), (g[..., :experts] * s).sum(-1))
        torch.testing.assert_close(scores.log_1mp_BC.exp(), 1 - scores.log_p_BC.exp())
        assert (scores.log_p_BC.exp() <= 1 - g[..., -1]).all()
        for parameter in model.parameters():
            parameter.data.zero_()
        torch.testing.assert_close(model(x).log_p_BC.exp(), torch.full((B, C), experts / (experts + 1) * 0.5).double())


@pytest.mark.parametrize("aggregation", NAMES)
def test_two_streams_are_pooled_apart(aggregation):
    x, mask = data()
    model = classifier(aggregation)
    assert [a.pool.descriptor_dim > 0 for a in model.streams] == [True, True]
    assert [a.assignment.out_features for a in model.streams] == [K, K // 2]
    # without normalisation over the batch, a change of stream 2 leaves stream 1's sums alone
    model.eval()
    before = model.sums(x, mask)
    changed = x.clone()
    changed[..., 4:] += 1
    after = model.sums(changed, mask)
    assert torch.equal(before[0].total, after[0].total) and not torch.equal(before[1].total, after[1].total)
    with pytest.raises(ValueError, match="wide"):
        model(x[..., :-1], mask)


@pytest.mark.parametrize("options", [{}, {"classifier": "logistic", "gate_classes": True}, {"batch_norm": False}])
def test_video_classifier_ignores_padding_and_learns(options):
    x, mask = data()
    model = classifier(**options)
    label = (torch.rand(B, C) < 0.4).double()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    want = model(x, mask)
    model.load_state_dict(state)
    padded = model(torch.nn.functional.pad(x, (0, 0, 0, 3), value=5.0), torch.nn.functional.pad(mask, (0, 3)))
    torch.testing.assert_close(padded.log_p_BC, want.log_p_BC)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    first = class_summed_loss(model(x, mask), label).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = class_summed_loss(model(x, mask), label)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first
    # in evaluation no video depends on its batch
    model.eval()
    torch.testing.assert_close(model(x[1:2], mask[1:2]).log_p_BC[0], model(x, mask).log_p_BC[1])


@pytest.mark.parametrize("aggregation", NAMES)
def test_leave_one_out_is_removing_the_frame(aggregation):
    x, mask = data()
    model = classifier(aggregation)
    model(x, mask)  # give the running statistics something to hold
    relevance = leave_one_out(model, x, mask, chunk=4)
    assert model.training and relevance.shape == (B, T, C) and (relevance[~mask] == 0).all()
    model.eval()
    for t in (0, 2):
        without = mask.clone()
        without[:, t] = False
        torch.testing.assert_close(relevance[:, t], model(x, mask).logit_BC - model(x, without).logit_BC)


@pytest.mark.parametrize("aggregation", NAMES)
def test_additive_decomposition_is_complete(aggregation):
    x, mask = data()
    model = classifier(aggregation, classifier="logistic").float()
    model(x.float(), mask)
    parts, bias = additive_decomposition(model, x.float(), mask, chunk=3)
    model.eval()
    torch.testing.assert_close(bias + parts.sum(1), model(x.float(), mask).logit_BC, rtol=1e-5, atol=1e-5)
    assert parts[~mask].abs().max() < 1e-6
    with pytest.raises(UserError, match="logistic"):
        additive_decomposition(classifier(), x, mask)


def test_relevance_finds_the_frame_that_carries_the_class():
    torch.manual_seed(0)
    x = 0.3 * torch.randn(200, 12, D)
    label = torch.zeros(200, 2)
    where = torch.randint(0, 12, (200,))
    for n in range(200):
        x[n, where[n], n % 2] += 3
        label[n, n % 2] = 1
    mask = torch.ones(200, 12, dtype=torch.bool)
    model = VideoClassifier(VideoClassifierSettings(clusters=4, hidden=8), (D,), 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        class_summed_loss(model(x, mask), label).backward()
        optimizer.step()
    found = leave_one_out(model, x, mask)[torch.arange(200), :, torch.arange(200) % 2].argmax(1)
    assert (found == where).float().mean() > 0.9  # chance is 1 in 12


def test_logistic_is_a_sigmoid():
    x = torch.randn(B, D)
    model = Logistic(D, C)
    torch.testing.assert_close(model(x).log_p_BC.exp(), model.linear(x).sigmoid())
    torch.testing.assert_close(model(x).logit_BC, model.linear(x), rtol=1e-5, atol=1e-5)
