"""A video may have no class at all: what the settings and the branches say then."""

import numpy as np
import pytest
import torch

from feature_extraction.errors import UserError
from wtal.config.inference import InferenceSettings
from wtal.config.models import VLPSettings
from wtal.inference.detect import choose_classes
from wtal.models.branch import BranchOutput, squash
from wtal.models.vlp import VLP, FixedText


@pytest.mark.parametrize(("best", "kept"), [(0.49, []), (0.51, [0]), (0.5, [])])
def test_no_class_above_the_threshold_is_no_class(best, kept):
    settings = InferenceSettings(class_rule="absolute", class_threshold=0.5, class_required=False)
    assert choose_classes(np.array([best, 0.1], np.float32), settings).tolist() == kept
    always = InferenceSettings(class_rule="absolute", class_threshold=0.5)
    assert choose_classes(np.array([best, 0.1], np.float32), always).tolist() == [0]


def test_only_an_absolute_rule_can_do_without():
    for rule in ("relative", "top"):
        with pytest.raises(UserError, match="needs inference.class_rule=absolute"):
            InferenceSettings(class_rule=rule, class_required=False)


def test_one_class_has_a_video_probability_of_its_own():
    """Mean of the top eighth of the frames' P by hand; a softmax over one class would be 1 for every video."""
    branch = VLP(VLPSettings(layers=0, heads=1), FixedText(torch.ones(1, 4)), 4, 10.0)
    logit_BTC = torch.linspace(-4, 4, 40).reshape(2, 20, 1)
    mask_BT = torch.ones(2, 20, dtype=torch.bool)
    mask_BT[1, 16:] = False
    output = BranchOutput(logit_BTC, *squash(logit_BTC, "sigmoid"), torch.zeros(2, 20, 4))
    found = branch.video_probability(output, mask_BT)
    p_BTC = torch.sigmoid(logit_BTC)
    wanted = [p_BTC[0, 17:, 0].mean(), p_BTC[1, 14:16, 0].mean()]
    torch.testing.assert_close(found[:, 0], torch.stack(wanted))
