"""Every CBP branch behind the one protocol: padding, locality, its own loss against plain re-computations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from feature_extraction.errors import UserError
from wtal.models.build import BACKBONES, PLUG_INS, build_cbp
from wtal.models.cbp.consensus import coactivity_loss, mil_loss, suppress, topk_mean
from wtal.models.cbp.evidential import evidential_loss, uncertainty_guided
from wtal.models.settings import CBPSettings

DIMS = {"rgb": 8, "flow": 8, "clip": 6}
NAMES = [*BACKBONES, *PLUG_INS]


def branch_of(name, **options):
    torch.manual_seed(0)
    return build_cbp(CBPSettings(name=name, width=16, heads=2, **options), DIMS, 3, "clip")


def batch():
    torch.manual_seed(1)
    feature = {name: torch.randn(4, 12, width) for name, width in DIMS.items()}
    mask = torch.arange(12)[None] < torch.tensor([12, 9, 12, 5])[:, None]
    label = torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1]])
    return feature, mask, label


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_branch_protocol(name, activation):
    branch = branch_of(name, activation=activation)
    feature, mask, label = batch()
    output = branch(feature, mask)
    assert output.p_BTC.shape == output.logit_BTC.shape == (4, 12, 3)
    assert output.feature_BTD.shape == (4, 12, branch.feature_dim)
    torch.testing.assert_close(output.p_BTC + output.log_not_p_BTC.exp(), torch.ones(4, 12, 3), atol=1e-5, rtol=0)
    loss, terms = branch.branch.own_loss(output, label, mask, 0.5)
    loss.backward()
    gradients = [p.grad for p in branch.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and all(torch.isfinite(g).all() for g in gradients) and terms
    video = branch.branch.video_probability(output, mask)
    assert video.shape == (4, 3) and (video >= 0).all() and (video <= 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_matter(name):
    branch = branch_of(name).eval()
    feature, mask, _ = batch()
    padded = branch(feature, mask)
    for row, length in enumerate(mask.sum(1)):
        alone = branch({k: v[row : row + 1, :length] for k, v in feature.items()}, mask[row : row + 1, :length])
        torch.testing.assert_close(padded.p_BTC[row, :length], alone.p_BTC[0], atol=1e-5, rtol=1e-4)
        video = branch.branch.video_probability(padded, mask)[row]
        torch.testing.assert_close(video, branch.branch.video_probability(alone, mask[row : row + 1, :length])[0])


@pytest.mark.parametrize("name", ["convolution", "transformer", "multiscale", "um"])
def test_own_loss_falls_when_trained(name):
    branch = branch_of(name, dropout_in=0.1, dropout_out=0.1, um_margin=5.0)
    feature, mask, label = batch()
    optimizer = torch.optim.Adam(branch.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        loss, terms = branch.branch.own_loss(branch(feature, mask), label, mask, step / 60)
        loss.backward()
        optimizer.step()
        losses.append(terms["bag"].item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("fusion,width", [("none", 16), ("concatenation", 22), ("average", 16)])
def test_early_fusion_feeds_the_vlp_stream(fusion, width):
    branch = branch_of("convolution", early_fusion=fusion).eval()
    assert branch.join.feature_dim == width
    feature, mask, _ = batch()
    before = branch(feature, mask).logit_BTC
    after = branch(feature | {"clip": torch.zeros_like(feature["clip"])}, mask).logit_BTC
    assert torch.equal(before, after) == (fusion == "none")


def test_missing_stream_is_named():
    with pytest.raises(UserError, match="'audio'.*rgb, flow, clip"):
        build_cbp(CBPSettings(streams=("audio",)), DIMS, 3, "clip")
    with pytest.raises(UserError, match="two streams of equal width"):
        build_cbp(CBPSettings(name="co2net", streams=("rgb",)), DIMS, 3, "clip")


def test_topk_mean_against_sorting():
    score = torch.randn(2, 20, 3)
    mask = torch.arange(20)[None] < torch.tensor([[20], [9]])
    got = topk_mean(score, mask, 4)
    for row, length, k in ((0, 20, 5), (1, 9, 2)):
        expected = score[row, :length].sort(0, descending=True).values[:k].mean(0)
        torch.testing.assert_close(got[row], expected)


def test_mil_loss_hand_value():
    # two snippets, ratio 1: mean scores (ln 3, 0): softmax (3/4, 1/4); target (1, 0) / 1.0001
    score = torch.tensor([[[math.log(9.0), 0.0], [0.0, 0.0]]])
    loss = mil_loss(score, torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool), 1)
    assert loss.item() == pytest.approx(-math.log(0.75) / 1.0001, rel=1e-5)


def test_suppression_keeps_the_minimum_and_scales_the_rest():
    s = torch.tensor([[[3.0, 1.0, -1.0]]])
    assert suppress(s, torch.tensor([[0.5]])).tolist() == [[[1.0, 0.0, -1.0]]]
    assert torch.equal(suppress(s, torch.tensor([[1.0]])), s)


def test_coactivity_against_a_plain_loop():
    torch.manual_seed(2)
    score, feature = torch.randn(4, 6, 3), torch.randn(4, 6, 5)
    label = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    mask = torch.ones(4, 6, dtype=torch.bool)
    total, count = 0.0, 0
    for i in (0, 2):
        for c in range(3):
            if not (label[i, c] and label[i + 1, c]):
                continue
            high = [feature[r].T @ F.softmax(score[r, :, c], 0) for r in (i, i + 1)]
            low = [feature[r].T @ ((1 - F.softmax(score[r, :, c], 0)) / 5) for r in (i, i + 1)]
            d = lambda a, b: 1 - F.cosine_similarity(a, b, dim=0)  # noqa: E731
            same = d(high[0], high[1])
            total += 0.5 * F.relu(same - d(high[0], low[1]) + 0.5) + 0.5 * F.relu(same - d(high[1], low[0]) + 0.5)
            count += 1
    got = coactivity_loss(score, feature, label, mask, pairs=2)
    assert got.item() == pytest.approx(float(total / count), rel=1e-5)
    assert coactivity_loss(score, feature, torch.eye(4)[:, :3], mask, pairs=2).item() == 0


def test_evidential_loss_hand_value():
    # one video, one chosen snippet with scores (ln 3, 0): e = (3, 1), alpha = (4, 2), S = 6, u = 2/6
    score = torch.tensor([[[math.log(3.0), 0.0], [5.0, 5.0]]])
    attention = torch.tensor([[0.9, 0.1]])
    loss = evidential_loss(score, attention, torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool), 2)
    assert loss.item() == pytest.approx((1 - 2 / 6) * (math.log(6) - math.log(4)), rel=1e-5)


def test_uncertainty_moves_from_sure_snippets_to_all_to_the_unsure():
    # snippet 0 has much evidence (sure), snippet 1 little; only snippet 0 has guide loss
    score = torch.tensor([[[8.0, 0.0], [-8.0, -8.0]]])
    guide = torch.tensor([[1.0, 0.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    early, middle, late = (uncertainty_guided(score, guide, mask, p, 0.7).item() for p in (0.0, 0.5, 1.0))
    assert early == pytest.approx((0.7 * math.tanh(0.5) + 1) / 2, rel=1e-5)
    assert middle == pytest.approx(0.5)
    assert late == pytest.approx(1 - early)


def test_pairs_of_the_sampler_share_a_class():
    from wtal.training.data import TrainingVideos

    class Features:
        def length(self, video_id):
            return 5

    label = np.zeros((12, 3), dtype=np.float32)
    label[:5, 0] = label[5:9, 1] = 1
    label[9:, 2] = 1
    videos = TrainingVideos(Features(), [str(i) for i in range(12)], label)
    for step in range(20):
        chosen = videos.paired(0, step, 10)
        assert len(chosen) == 10
        for first in (0, 2, 4):
            assert (label[chosen[first]] * label[chosen[first + 1]]).any() and chosen[first] != chosen[first + 1]
    assert not np.array_equal(videos.paired(0, 0, 10), videos.paired(1, 0, 10))
