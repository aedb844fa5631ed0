"""The main CBP branch: a backbone, a linear frame classifier, and a pooling head that makes the video score.

Legend: B videos, T snippets, D input width, W feature width, C classes, R real snippets.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.config.models import CBPSettings
from wtal.models.branch import Branch, BranchOutput, Inputs, squash
from wtal.models.cbp.refinement import Refinement
from wtal.models.layers import BatchDropout, MaskedConv1d, Packing, TransformerBlock, convolve
from wtal.models.losses import bag_cross_entropy, bag_instance_loss, binary_bag_loss
from wtal.models.pooling.head import Pooled, PoolingHead, make_pooling

BAG = "bag_BTC"
"""Key of the frame logits that the bag is pooled from, where others are refined."""


class PooledCBP(Branch):
    """CBP by multiple-instance learning: frame logits pooled over time into the video's class score, equation (1).

    `make_backbone` makes, of settings and input width, what maps `[B, T, D]` and the mask to `[B, T, W]` and says its
    `feature_dim`. A head of the logit space trains with (1), one of the probability space with binary cross-entropy,
    or with the bag+instance loss where `instance_weight` is set.
    """

    def __init__(
        self,
        make_backbone: Callable[[CBPSettings, int], nn.Module],
        settings: CBPSettings,
        inputs: Inputs,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = make_backbone(settings, inputs.width)
        self.feature_dim = self.backbone.feature_dim
        self.pooling = make_pooling(settings.pooling, num_classes, self.feature_dim)
        self.classifier = nn.Linear(self.feature_dim, num_classes)
        self.refinement = (
            Refinement(self.feature_dim, num_classes, settings.refinement) if settings.refinement else None
        )
        # noisy-or needs to know how many frames there are
        nn.init.constant_(self.classifier.bias, self.pooling.frame_bias(inputs.typical_length))

    def forward(self, feature_BTD: Tensor, mask_BT: Tensor) -> BranchOutput:
        hidden_BTW = self.backbone(feature_BTD, mask_BT)
        logit_BTC = self.classifier(hidden_BTW)
        if self.pooling.name == "attentional":
            # this head makes frame evidence of its own, which replaces the classifier's
            logit_BTC = self.pooling(None, mask_BT, hidden_BTW).frame_logit_BTC
        extra = {}
        if self.refinement is not None:
            extra = {BAG: logit_BTC}
            logit_BTC = logit_BTC + self.refinement(hidden_BTW, logit_BTC, mask_BT)
        return BranchOutput(logit_BTC, *squash(logit_BTC, self.settings.activation), hidden_BTW, extra=extra)

    def own_loss(
        self, output: BranchOutput, label_BC: Tensor, mask_BT: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The bag loss that fits the head's space, plus the head's regulariser."""
        pooled = self._pooled(output, mask_BT)
        return own_loss_of(self.pooling, pooled, label_BC, mask_BT, self.settings.instance_weight)

    def video_probability(self, output: BranchOutput, mask_BT: Tensor) -> Tensor:
        pooled = self._pooled(output, mask_BT)
        if self.pooling.space == "logit":
            return pooled.logit_BC.softmax(-1)
        return pooled.log_p_BC.exp()

    def _pooled(self, output: BranchOutput, mask_BT: Tensor) -> Pooled:
        """The bag's score, of frame scores before they are refined."""
        return self.pooling(output.extra.get(BAG, output.logit_BTC), mask_BT, output.feature_BTD)

    def after_step(self, progress: float) -> None:
        """Keep learnt exponents inside their bounds and move scheduled ones."""
        self.pooling.project()
        self.pooling.set_progress(progress)

    def learnt(self) -> dict[str, list[float]]:
        """The head's exponents, one a class."""
        return {f"exponent_{name}": value_C.tolist() for name, value_C in self.pooling.exponents().items()}


def own_loss_of(
    pooling: PoolingHead, pooled: Pooled, label_BC: Tensor, mask_BT: Tensor, instance_weight: float | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The bag loss that fits the head's space, plus the head's regulariser; and its terms."""
    if pooling.space == "logit":
        bag = bag_cross_entropy(pooled.logit_BC, label_BC)
    elif instance_weight is not None:
        bag = bag_instance_loss(pooled, label_BC, mask_BT, instance_weight)
    else:
        bag = binary_bag_loss(pooled, label_BC)
    return bag + pooling.regulariser(), {"bag": bag}


class TransformerBackbone(nn.Module):
    """Transformer over the snippets (multi-head self-attention, layer norm, MLP), as the paper has it.

    `window` (snippets to each side) is the guard of localisation, together with strong dropout on the input and on
    the features: attention over the whole video (`window=0`) lets each frame learn the bag's label.
    """

    def __init__(self, settings: CBPSettings, width_in: int) -> None:
        super().__init__()
        width = self.feature_dim = settings.width
        self.dropout_in, self.dropout_out = BatchDropout(settings.dropout_in), BatchDropout(settings.dropout_out)
        self.project = nn.Linear(width_in, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, settings.heads, settings.window) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        packing = Packing(mask_BT)
        x_RW = self.project(packing.pack(self.dropout_in(x_BTD)))
        for block in self.blocks:
            x_RW = block(x_RW, packing)
        return self.dropout_out(packing.unpack(self.norm(x_RW)))


class ConvolutionBackbone(nn.Module):
    """One convolution over time between two dropouts: local by construction."""

    def __init__(self, settings: CBPSettings, width_in: int) -> None:
        super().__init__()
        self.feature_dim = settings.width
        self.dropout_in, self.dropout_out = BatchDropout(settings.dropout_in), BatchDropout(settings.dropout_out)
        self.convolution = MaskedConv1d(width_in, settings.width, settings.kernel)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return self.dropout_out(F.relu(self.convolution(self.dropout_in(x_BTD), mask_BT)))


class MultiScaleBackbone(nn.Module):
    """Convolutions of several dilations side by side, joined by a linear layer: short and long actions at once."""

    def __init__(self, settings: CBPSettings, width_in: int) -> None:
        super().__init__()
        width, dilations = settings.width, settings.dilations
        self.feature_dim = width
        self.dropout_in, self.dropout_out = BatchDropout(settings.dropout_in), BatchDropout(settings.dropout_out)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width_in, width, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        self.join = nn.Linear(width * len(dilations), width)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTD = self.dropout_in(x_BTD)
        scales_BTS = torch.cat([convolve(layer, x_BTD, mask_BT) for layer in self.convolutions], dim=-1)
        return self.dropout_out(F.relu(self.join(F.relu(scales_BTS))))
