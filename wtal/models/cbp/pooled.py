"""The main CBP branch: a backbone, a linear frame classifier, and a pooling head that makes the video score.

Legend: B videos, T snippets, D input width, W feature width, C classes.
"""

from torch import Tensor, nn

from wtal.losses import bag_cross_entropy
from wtal.losses_pooling import bag_instance_loss, binary_bag_loss
from wtal.models.branch import BranchOutput, squash
from wtal.models.pooling import PoolingHead


class PooledCBP(nn.Module):
    """CBP by multiple-instance learning: frame logits pooled over time into the video's class score, equation (1).

    `backbone` maps `[B, T, D]` and the mask to `[B, T, W]` and says its `feature_dim`; `pooling` is a head of
    `wtal.models.pooling`. A head of the logit space trains with (1), one of the probability space with binary
    cross-entropy, or with the bag+instance loss where `instance_weight` is given. `typical_length` in snippets places
    the classifier's first bias where the head needs that (noisy-or).
    """

    pair_sampling = False

    def __init__(
        self,
        backbone: nn.Module,
        pooling: PoolingHead,
        num_classes: int,
        activation: str,
        typical_length: float = 100.0,
        instance_weight: float | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.classifier = nn.Linear(backbone.feature_dim, num_classes)
        nn.init.constant_(self.classifier.bias, pooling.frame_bias(typical_length))
        self.activation, self.instance_weight = activation, instance_weight
        self.feature_dim = backbone.feature_dim

    def forward(self, feature_BTD: Tensor, mask_BT: Tensor) -> BranchOutput:
        hidden_BTW = self.backbone(feature_BTD, mask_BT)
        logit_BTC = self.classifier(hidden_BTW)
        if self.pooling.name == "attentional":
            # this head makes frame evidence of its own, which replaces the classifier's
            logit_BTC = self.pooling(None, mask_BT, hidden_BTW).frame_logit_BTC
        return BranchOutput(logit_BTC, *squash(logit_BTC, self.activation), hidden_BTW)

    def own_loss(
        self, output: BranchOutput, label_BC: Tensor, mask_BT: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The bag loss that fits the head's space, plus the head's regulariser."""
        pooled = self.pooling(output.logit_BTC, mask_BT, output.feature_BTD)
        if self.pooling.space == "logit":
            bag = bag_cross_entropy(pooled.logit_BC, label_BC)
        elif self.instance_weight is not None:
            bag = bag_instance_loss(pooled, label_BC, mask_BT, self.instance_weight)
        else:
            bag = binary_bag_loss(pooled, label_BC)
        return bag + self.pooling.regulariser(), {"bag": bag}

    def video_probability(self, output: BranchOutput, mask_BT: Tensor) -> Tensor:
        pooled = self.pooling(output.logit_BTC, mask_BT, output.feature_BTD)
        if self.pooling.space == "logit":
            return pooled.logit_BC.softmax(-1)
        return pooled.log_p_BC.exp()
