"""CO2-Net (Hong et al., ACM MM 2021) as a CBP branch: cross-modal consensus, class scores times attention.

Written from the method's description. The two streams re-weight each other's channels; each yields a class-agnostic
attention; the classifier has a background class (last).

Legend: B videos, T snippets, D stream width, C classes (K = C + 1 with background), X joined width 2D.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from feature_extraction.errors import UserError
from wtal.config.models import CBPSettings, ConsensusSettings
from wtal.models.branch import Branch, BranchOutput, Inputs, attended
from wtal.models.layers import BatchDropout, convolve_rows, topk_mean


class Conv(nn.Module):
    """Convolution over `[B, D, T]` and a leaky ReLU, Kaiming-uniform weights, zero bias."""

    def __init__(self, width_in: int, width_out: int, kernel: int, activate: bool = True) -> None:
        super().__init__()
        self.layer = nn.Conv1d(width_in, width_out, kernel, padding=kernel // 2)
        nn.init.kaiming_uniform_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.activate = activate

    def forward(self, x_BDT: Tensor) -> Tensor:
        y_BDT = convolve_rows(self.layer, x_BDT.transpose(1, 2)).transpose(1, 2)
        return F.leaky_relu(y_BDT, 0.2) if self.activate else y_BDT


class ConsensusModule(nn.Module):
    """Filters the `main` stream's channels by what the video as a whole and the `other` stream agree on."""

    def __init__(self, width: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.globally, self.locally = Conv(width, width, 3), Conv(width, width, 3)
        self.attend = nn.ModuleList(
            [Conv(width, width // 2, 3), Conv(width // 2, width // 2, 3), Conv(width // 2, 1, 1, activate=False)]
        )
        self.drop_global, self.drop_local = BatchDropout(dropout), BatchDropout(dropout)
        # the second stands before the sigmoid: a dropped snippet's attention is 0.5 in training
        self.drop_first, self.drop_last = BatchDropout(dropout), BatchDropout(dropout)

    def forward(self, main_BDT: Tensor, other_BDT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Filtered main stream `[B, D, T]` and attention `[B, T]`."""
        mask_B1T = mask_BT[:, None].to(main_BDT.dtype)
        mean_BD1 = (main_BDT * mask_B1T).sum(-1, keepdim=True) / mask_B1T.sum(-1, keepdim=True).clamp(min=1)
        channel_BD1 = self.drop_global(self.globally(mean_BD1))
        local_BDT = self.drop_local(self.locally(other_BDT * mask_B1T))
        filtered_BDT = torch.sigmoid(local_BDT * channel_BD1) * main_BDT
        first, second, last = self.attend
        x_BDT = second(self.drop_first(first(filtered_BDT * mask_B1T)) * mask_B1T)
        return filtered_BDT, torch.sigmoid(self.drop_last(last(x_BDT))[:, 0])


class ConsensusNet(Branch):
    """CO2-Net's network and losses for two streams of equal width, side by side. DELU has the same network.

    Its loss expects batches that begin with pairs of videos sharing a class. Raises `UserError` for other streams.
    """

    pair_sampling = True

    def __init__(self, settings: CBPSettings, inputs: Inputs, num_classes: int) -> None:
        super().__init__()
        if len(inputs.widths) != 2 or inputs.widths[0] != inputs.widths[1]:
            named = zip(settings.streams, inputs.widths, strict=True)
            raise UserError(
                f"cbp.name {settings.name!r} needs two streams of equal width, got "
                + ", ".join(f"{name} of {width}" for name, width in named)
            )
        width = self.width = inputs.widths[0]
        self.settings, self.own = settings, settings.method
        self.feature_dim = 2 * width
        self.appearance, self.motion = ConsensusModule(width), ConsensusModule(width)
        self.fuse = Conv(2 * width, 2 * width, 1)
        self.hidden = Conv(2 * width, 2 * width, 3)
        self.classify = Conv(2 * width, num_classes + 1, 1, activate=False)
        self.drop_input = BatchDropout(settings.dropout_in)
        self.drops = nn.ModuleList(BatchDropout(settings.dropout_out) for _ in range(3))

    def forward(self, feature_BTX: Tensor, mask_BT: Tensor) -> BranchOutput:
        rgb_BDT, flow_BDT = self.drop_input(feature_BTX).transpose(1, 2).split(self.width, dim=1)
        filtered_rgb_BDT, rgb_attention_BT = self.appearance(rgb_BDT, flow_BDT, mask_BT)
        filtered_flow_BDT, flow_attention_BT = self.motion(flow_BDT, rgb_BDT, mask_BT)
        if self.own.smooth:
            rgb_attention_BT = smoothed(rgb_attention_BT[..., None], mask_BT, self.own.smooth)[..., 0]
            flow_attention_BT = smoothed(flow_attention_BT[..., None], mask_BT, self.own.smooth)[..., 0]
        attention_BT = (rgb_attention_BT + flow_attention_BT) / 2
        joined_BXT = self.drops[0](self.fuse(torch.cat([filtered_rgb_BDT, filtered_flow_BDT], dim=1)))
        x_BXT = self.drops[2](self.hidden(self.drops[1](joined_BXT) * mask_BT[:, None]))
        logit_BTK = self.classify(x_BXT).transpose(1, 2)
        if self.own.smooth:
            logit_BTK = smoothed(logit_BTK, mask_BT, self.own.smooth)
        extra = {"logit_BTK": logit_BTK, "rgb_attention_BT": rgb_attention_BT, "flow_attention_BT": flow_attention_BT}
        log_p_BTC, log_not_p_BTC = attended(
            logit_BTK[..., :-1], attention_BT, self.settings.activation, logit_BTK[..., -1]
        )
        suppressed_BTK = extra["suppressed_BTK"] = suppress(logit_BTK, attention_BT)
        raw_BTC = logit_BTK[..., :-1] * attention_BT[..., None]
        feature_BTX = joined_BXT.transpose(1, 2)
        return BranchOutput(
            suppressed_BTK[..., :-1], log_p_BTC, log_not_p_BTC, feature_BTX, attention_BT, raw_BTC, extra
        )

    def video_probability(self, output: BranchOutput, mask_BT: Tensor) -> Tensor:
        """Softmax over classes and background of the top-k mean of scores times attention; background dropped:
        `[B, C]`."""
        raw_BTK = output.extra["logit_BTK"] * output.attention_BT[..., None]
        return topk_mean(raw_BTK, mask_BT, 10).softmax(-1)[:, :-1]

    def own_loss(
        self, output: BranchOutput, label_BC: Tensor, mask_BT: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """MIL on plain and suppressed scores, co-activity, mutual, norm and guide losses, weighted."""
        terms = consensus_terms(output, label_BC, mask_BT, self.own.topk_ratio, mean_guidance(output))
        return weighted(terms, self.own), terms


def weighted(terms: dict[str, Tensor], settings: ConsensusSettings) -> Tensor:
    """The loss: every term with its weight in the settings, the multiple-instance loss with 1."""
    return sum((getattr(settings, name) * value for name, value in terms.items() if name != "mil"), terms["mil"])


def smoothed(score_BTK: Tensor, mask_BT: Tensor, kernel: int) -> Tensor:
    """Mean over `kernel` snippets around each; beyond a video's ends the scores are 0 and count (as published)."""
    real_BKT = (score_BTK * mask_BT[..., None]).transpose(1, 2)
    return F.avg_pool1d(real_BKT, kernel, stride=1, padding=kernel // 2).transpose(1, 2)


def suppress(logit_BTK: Tensor, attention_BT: Tensor) -> Tensor:
    """Scores pulled towards their minimum over classes where attention is low: `a (s - min s) + min s`."""
    low_BT1 = logit_BTK.amin(-1, keepdim=True)
    return attention_BT[..., None] * (logit_BTK - low_BT1) + low_BT1


def mil_loss(score_BTK: Tensor, target_BK: Tensor, mask_BT: Tensor, ratio: int) -> Tensor:
    """Softmax cross-entropy of the top-k mean with the target scaled to sum 1."""
    target_BK = target_BK / (target_BK.sum(1, keepdim=True) + 1e-4)
    return -(target_BK * topk_mean(score_BTK, mask_BT, ratio).log_softmax(-1)).sum(-1).mean()


def masked_mean(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the real snippets of the batch."""
    return torch.where(mask_BT, value_BT, 0).sum() / mask_BT.sum().clamp(min=1)


def guidance(logit_BTK: Tensor, attention_BT: Tensor) -> Tensor:
    """How far attention is from being the complement of the background class, per snippet: `|1 - a - bg|`."""
    return (1 - attention_BT - logit_BTK.softmax(-1)[..., -1]).abs()


def mean_guidance(output: BranchOutput) -> Tensor:
    """`guidance` of the joint attention and of both streams', averaged: `[B, T]`."""
    attentions = (output.attention_BT, output.extra["rgb_attention_BT"], output.extra["flow_attention_BT"])
    return sum(guidance(output.extra["logit_BTK"], attention_BT) for attention_BT in attentions) / 3


def consensus_terms(
    output: BranchOutput, label_BC: Tensor, mask_BT: Tensor, ratio: int, guide_BT: Tensor, pairs: int = 3
) -> dict[str, Tensor]:
    """All loss terms of CO2-Net by name, unweighted; `guide_BT` is `mean_guidance`."""
    logit_BTK, attention_BT = output.extra["logit_BTK"], output.attention_BT
    rgb_BT, flow_BT = output.extra["rgb_attention_BT"], output.extra["flow_attention_BT"]
    suppressed_BTK = output.extra["suppressed_BTK"]
    with_background_BK = F.pad(label_BC, (0, 1), value=1.0)
    without_BK = F.pad(label_BC, (0, 1), value=0.0)
    mil = mil_loss(logit_BTK, with_background_BK, mask_BT, ratio) + mil_loss(suppressed_BTK, without_BK, mask_BT, ratio)
    attentions = (attention_BT, rgb_BT, flow_BT)
    mutual_BT = ((rgb_BT - flow_BT.detach()) ** 2 + (flow_BT - rgb_BT.detach()) ** 2) / 2
    return {
        "mil": mil,
        "coactivity": coactivity_loss(suppressed_BTK, output.feature_BTD, label_BC, mask_BT, pairs),
        "mutual": masked_mean(mutual_BT, mask_BT),
        "norm": sum(masked_mean(a_BT, mask_BT) for a_BT in attentions) / 3,
        "guide": masked_mean(guide_BT, mask_BT),
    }


def coactivity_loss(
    score_BTK: Tensor, feature_BTX: Tensor, label_BC: Tensor, mask_BT: Tensor, pairs: int, margin: float = 0.5
) -> Tensor:
    """W-TALC's co-activity similarity over the batch's leading pairs: same class alike, its background apart.

    For each pair and shared class, features averaged by the class's softmax over time (high) and by its complement
    (low); cosine distances of high to high must be `margin` below high to low. Zero without a shared class.
    """
    total, shared_count = feature_BTX.sum() * 0, 0
    for first in range(0, min(2 * pairs, len(label_BC) - 1), 2):
        shared = (label_BC[first] * label_BC[first + 1]).nonzero()[:, 0]
        if not len(shared):
            continue
        high, low = [], []
        for row in (first, first + 1):
            real = mask_BT[row]
            weight_TS = score_BTK[row][real][:, shared].softmax(0)
            feature_TX = feature_BTX[row][real]
            high.append(weight_TS.T @ feature_TX)
            low.append(((1 - weight_TS) / max(len(feature_TX) - 1, 1)).T @ feature_TX)
        same_S = 1 - F.cosine_similarity(high[0], high[1], dim=-1)
        apart_S = [1 - F.cosine_similarity(high[0], low[1], dim=-1), 1 - F.cosine_similarity(high[1], low[0], dim=-1)]
        total = total + sum(F.relu(same_S - other_S + margin).sum() for other_S in apart_S) / 2
        shared_count += len(shared)
    return total / max(shared_count, 1)
