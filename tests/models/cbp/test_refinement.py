"""The refinement of frame scores: nothing until frames are labelled, and then no further than a neighbour."""

import copy

import pytest
import torch

from wtal.config.models import CBPSettings
from wtal.config.training import LossSettings
from wtal.models.build import build_cbp
from wtal.models.cbp.refinement import Refinement
from wtal.training.distillation import taught_loss

from .test_cbp import DIMS, batch


def branch_of(name, refinement):
    torch.manual_seed(0)
    settings = CBPSettings(name=name, width=16, heads=2, refinement=refinement, dropout_in=0.0, dropout_out=0.0)
    return build_cbp(settings, DIMS, 3, "clip")


def stepped(branch, loss):
    optimizer = torch.optim.AdamW(branch.parameters(), lr=0.01, fused=True)
    loss.backward()
    optimizer.step()
    return branch


@pytest.mark.parametrize("name", ["convolution", "transformer", "multiscale"])
def test_the_bag_loss_trains_what_it_trains_without_refinement(name):
    feature, mask, label = batch()
    plain, refined = branch_of(name, 0), branch_of(name, 5)
    before = copy.deepcopy(refined.state_dict())
    for branch in (plain, refined):
        output = branch(feature, mask)
        stepped(branch, branch.own_loss(output, label, mask, 0.5)[0])
    after = refined.state_dict()
    for key, value in plain.state_dict().items():
        assert torch.equal(after[key], value)
    own = [key for key in before if "refinement" in key]
    assert own and all(torch.equal(after[key], before[key]) for key in own)
    plain.eval(), refined.eval()
    assert torch.equal(plain(feature, mask).logit_BTC, refined(feature, mask).logit_BTC)


def test_labels_of_frames_train_it_and_leave_the_bag_its_own_scores():
    feature, mask, label = batch()
    branch = branch_of("convolution", 5)
    pseudo = torch.randint(-1, 2, (4, 12, 3), dtype=torch.int8).masked_fill(~mask[..., None], -1)
    for _ in range(2):  # the second step reaches what lies before the zeros
        before = copy.deepcopy(branch.state_dict())
        branch.zero_grad()
        stepped(branch, taught_loss(branch(feature, mask), pseudo, label, LossSettings())[0])
    moved = {key for key, value in branch.state_dict().items() if not torch.equal(value, before[key])}
    assert {key for key in before if "refinement" in key} <= moved
    branch.eval()
    output = branch(feature, mask)
    hidden = output.feature_BTD
    bag = branch.branch.classifier(hidden)
    torch.testing.assert_close(output.extra["bag_BTC"], bag)
    pooled = branch.branch.pooling(bag, mask, hidden).logit_BC.softmax(-1)
    torch.testing.assert_close(branch.video_probability(output, mask), pooled)
    assert (output.logit_BTC - bag).abs().amax() > 1e-3


def test_a_frame_sees_its_two_neighbours_and_no_padding():
    torch.manual_seed(0)
    refinement = Refinement(4, 3, 6).eval()
    torch.nn.init.normal_(refinement.add.weight)
    hidden, logit = torch.randn(2, 9, 4), torch.randn(2, 9, 3)
    mask = torch.arange(9)[None] < torch.tensor([9, 6])[:, None]
    whole = refinement(hidden, logit, mask)
    for b, length in enumerate((9, 6)):
        alone = refinement(hidden[b : b + 1, :length], logit[b : b + 1, :length], torch.ones(1, length, dtype=bool))
        torch.testing.assert_close(whole[b, :length], alone[0])
    changed = hidden.clone()
    changed[0, 4] += 1
    moved = (refinement(changed, logit, mask) - whole).abs().sum(-1)[0] > 0
    assert moved.nonzero()[:, 0].tolist() == [3, 4, 5]
