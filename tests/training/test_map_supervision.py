"""Boxes teach the bottom-up map where they are known, and nothing where they are not."""

import numpy as np
import pytest
import torch

from feature_extraction.errors import UserError
from wtal.models.branch import BranchOutput
from wtal.training.data import Batch
from wtal.training.map_supervision import MapSupervision, map_supervision


def batch(videos, snippets):
    longest = max(map(len, snippets))
    mask_BT = torch.arange(longest) < torch.tensor([[len(index)] for index in snippets])
    return Batch({}, mask_BT, mask_BT, torch.zeros(len(videos), 1), np.array(videos), [np.array(s) for s in snippets])


def output(map_BTP):
    zero_BTC = torch.zeros(*map_BTP.shape[:2], 1)
    return BranchOutput(zero_BTC, zero_BTC, zero_BTC, zero_BTC, zero_BTC, extra={"map_BTP": map_BTP})


def test_loss_is_the_mean_square_over_snippets_that_have_a_box():
    first_TP = np.array([[1.0, 0.0], [np.nan, np.nan], [0.5, 0.5], [0.0, 0.0]])
    supervision = MapSupervision(1.0, [first_TP, None])
    map_BTP = torch.rand(3, 2, 2, requires_grad=True)
    # snippets 2 and 1 of the first video, all of one without boxes, and a clip beside the training videos
    loss = supervision.loss(output(map_BTP), batch([0, 1, 7], [[2, 1], [0, 1], [0]]))
    assert loss.item() == pytest.approx(((map_BTP[0, 0] - 0.5) ** 2).mean().item())
    loss.backward()
    assert map_BTP.grad[0, 0].abs().min() > 0
    assert map_BTP.grad[0, 1].abs().max() == 0 and map_BTP.grad[1:].abs().max() == 0
    assert supervision.loss(output(map_BTP), batch([1], [[0, 1]])).item() == 0


def test_boxes_that_teach_nothing_are_refused(make_config, tmp_path):
    table = tmp_path / "b.csv"
    table.write_text("video,start,end,left,top,right,bottom\nelse,0,1,0,0,1,1\n")
    with pytest.raises(UserError, match=r"data\.boxes teaches the bottom-up map of cbp\.name=spatial"):
        map_supervision(make_config(data={"boxes": str(table)}), None, ["a"])
    spatial = {"name": "spatial", "pooling": {"name": "attentional"}}
    with pytest.raises(
        UserError, match="none of the 1 training videos is in it .its first video is 'else', theirs 'a'."
    ):
        map_supervision(make_config(data={"boxes": str(table)}, cbp=spatial), None, ["a"])
