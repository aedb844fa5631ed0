"""UM (Lee et al., AAAI 2021) as a CBP branch: background as features of small magnitude.

Legend: B videos, T snippets, D width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.config.models import CBPSettings
from wtal.models.branch import Branch, BranchOutput, Inputs, at_least_float32, attended
from wtal.models.layers import BatchDropout, MaskedConv1d, topk_mean


class MagnitudeNet(Branch):
    """UM's network and losses. The frame probability is the class probability by `activation` (published: softmax over
    classes) times the scaled feature magnitude.

    Foreground is pushed to the margin, background to magnitude 0. The published margin is 100 at width 2048; elsewhere
    it is that times the root of width / 2048, for the norm of features of equal size grows so.
    """

    def __init__(self, settings: CBPSettings, inputs: Inputs, num_classes: int) -> None:
        super().__init__()
        own = self.own = settings.method
        self.activation = settings.activation
        width = self.feature_dim = own.width or inputs.width
        self.margin = 100.0 * (width / 2048) ** 0.5 if own.margin is None else own.margin
        self.embed = MaskedConv1d(inputs.width, width, 3)
        self.classify = nn.Linear(width, num_classes, bias=False)
        self.drop_input, self.drop_features = BatchDropout(settings.dropout_in), BatchDropout(settings.dropout_out)
        self.drop_selection = BatchDropout(0.7)

    def forward(self, feature_BTD: Tensor, mask_BT: Tensor) -> BranchOutput:
        hidden_BTD = F.relu(self.embed(self.drop_input(feature_BTD), mask_BT))
        class_BTC = self.classify(self.drop_features(hidden_BTD))
        magnitude_BT = at_least_float32(hidden_BTD).norm(dim=-1)
        scaled_BT = scaled_magnitude(magnitude_BT, mask_BT, self.own.action_ratio, self.own.background_ratio)
        log_p_BTC, log_not_p_BTC = attended(class_BTC, scaled_BT, self.activation)
        extra = {
            "class_BTC": class_BTC,
            "magnitude_BT": magnitude_BT,
            # one mask for choosing action and background snippets, drawn here so that it shards with the batch
            "keep_BT": self.drop_selection(torch.ones_like(magnitude_BT)),
        }
        # softmax over classes times magnitude is what UM thresholds; so it is also what min-max normalisation sees
        score_BTC = at_least_float32(class_BTC).softmax(-1) * scaled_BT[..., None]
        return BranchOutput(score_BTC, log_p_BTC, log_not_p_BTC, hidden_BTD, scaled_BT, score_BTC, extra)

    def own_loss(
        self, output: BranchOutput, label_BC: Tensor, mask_BT: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Classification of action snippets, magnitude margin, and uniform classes on background snippets.

        The cross-entropies are sums over classes divided by 20, UM's class count, so that their size does not fall
        with C (with the published mean over classes ActivityNet's 100 do not train).
        """
        class_BTC, magnitude_BT = output.extra["class_BTC"], output.extra["magnitude_BT"]
        keep_BT = output.extra["keep_BT"]
        largest_B1 = magnitude_BT.masked_fill(~mask_BT, 0).amax(1, keepdim=True)
        action, background, action_norm, background_norm = [], [], [], []
        for row, mask_T in enumerate(mask_BT):
            real_T = mask_T.nonzero()[:, 0]
            length = len(real_T)
            kept_T = keep_BT[row, real_T]
            size_T = magnitude_BT[row, real_T]
            act = (kept_T * size_T).topk(max(1, length // self.own.action_ratio)).indices
            rest = (kept_T * (largest_B1[row] - size_T)).topk(max(1, length // self.own.background_ratio)).indices
            hidden_TD, score_TC = output.feature_BTD[row, real_T], class_BTC[row, real_T]
            top = max(1, length // self.own.action_ratio)
            action.append(score_TC.topk(top, dim=0).values.mean(0).softmax(-1))
            background.append(score_TC[rest].mean(0).softmax(-1))
            action_norm.append(hidden_TD[act].mean(0).norm())
            background_norm.append(hidden_TD[rest].mean(0).norm())
        action_BC, background_BC = torch.stack(action), torch.stack(background)
        target_BC = label_BC / label_BC.sum(1, keepdim=True).clamp(min=1)
        classes = label_BC.shape[1]
        bag = _cross_entropy(action_BC, target_BC)
        uniform = _cross_entropy(background_BC, torch.full_like(background_BC, 1 / classes))
        margin = (F.relu(self.margin - torch.stack(action_norm)) + torch.stack(background_norm)).square().mean()
        total = bag + self.own.magnitude_weight * margin + self.own.background_weight * uniform
        return total, {"bag": bag, "magnitude": margin, "uniform": uniform}

    def video_probability(self, output: BranchOutput, mask_BT: Tensor) -> Tensor:
        """Softmax over classes of the mean of the top `T // action_ratio` class scores: `[B, C]`."""
        return topk_mean(output.extra["class_BTC"], mask_BT, self.own.action_ratio).softmax(-1)


def scaled_magnitude(magnitude_BT: Tensor, mask_BT: Tensor, action_ratio: int, background_ratio: int) -> Tensor:
    """Magnitudes in 0..1 per video, 0 at the mean of its background snippets and 1 at that of its action snippets.

    Action are the `T // action_ratio` largest of the video, background the `T // background_ratio` smallest. What lies
    outside is clipped, and a video of one magnitude becomes 0, like padding.
    """
    high_B1 = topk_mean(magnitude_BT[..., None], mask_BT, action_ratio)
    low_B1 = -topk_mean(-magnitude_BT[..., None], mask_BT, background_ratio)
    scaled_BT = (magnitude_BT - low_B1) / (high_B1 - low_B1).clamp(min=1e-6)
    return scaled_BT.clamp(0, 1).masked_fill(~mask_BT, 0)


def _cross_entropy(probability_BC: Tensor, target_BC: Tensor) -> Tensor:
    entry_BC = F.binary_cross_entropy(probability_BC.clamp(1e-7, 1 - 1e-7), target_BC, reduction="none")
    return entry_BC.sum(1).mean() / 20
