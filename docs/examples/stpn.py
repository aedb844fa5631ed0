"""A CBP branch: STPN (Nguyen et al., CVPR 2018), a few snippets, chosen by an attention, must do for the video's label.

Legend: B videos, T snippets, D feature width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.config.models import CBPSettings
from wtal.models.branch import Branch, BranchOutput, Inputs, attended
from wtal.models.layers import BatchDropout
from wtal.models.losses import bag_cross_entropy


class SparseNet(Branch):
    """Two linear layers; the attention weighs snippets in the video's score, and is kept low elsewhere."""

    def __init__(self, settings: CBPSettings, inputs: Inputs, num_classes: int) -> None:
        super().__init__()
        self.activation, self.sparsity = settings.activation, settings.method.sparsity
        self.feature_dim = settings.method.width
        self.hidden = nn.Linear(inputs.width, self.feature_dim)
        self.attention = nn.Linear(self.feature_dim, 1)
        self.drop = BatchDropout(settings.dropout_out)
        self.classify = nn.Linear(self.feature_dim, num_classes)

    def forward(self, feature_BTD: Tensor, mask_BT: Tensor) -> BranchOutput:
        hidden_BTD = F.relu(self.hidden(feature_BTD))
        logit_BTC = self.classify(self.drop(hidden_BTD))
        attention_BT = torch.sigmoid(self.attention(hidden_BTD)[..., 0])
        log_p_BTC, log_not_p_BTC = attended(logit_BTC, attention_BT, self.activation)
        return BranchOutput(logit_BTC, log_p_BTC, log_not_p_BTC, hidden_BTD, attention_BT)

    def own_loss(
        self, output: BranchOutput, label_BC: Tensor, mask_BT: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the video's score plus `sparsity` times the mean attention (the paper's L1 norm)."""
        bag = bag_cross_entropy(self._video_logit(output, mask_BT), label_BC)
        attention = output.attention_BT[mask_BT].mean()
        return bag + self.sparsity * attention, {"bag": bag, "attention": attention}

    def video_probability(self, output: BranchOutput, mask_BT: Tensor) -> Tensor:
        return self._video_logit(output, mask_BT).softmax(-1)

    def _video_logit(self, output: BranchOutput, mask_BT: Tensor) -> Tensor:
        """The classifier is linear: the mean of its scores is its score of the mean feature."""
        weight_BT1 = (output.attention_BT * mask_BT)[..., None]
        return (weight_BT1 * output.logit_BTC).sum(dim=1) / weight_BT1.sum(dim=1).clamp(min=1e-6)
