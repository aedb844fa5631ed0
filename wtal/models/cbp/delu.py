"""DELU (Chen et al., ECCV 2022) as a CBP branch: CO2-Net's network with evidential uncertainty in the losses.

Evidence e = exp(clamp(s, -10, 10)), Dirichlet alpha = e + 1, S = sum alpha, uncertainty u = K / S.

Legend: B videos, T snippets, C classes (K = C + 1 with background).
"""

import torch
from torch import Tensor

from wtal.config.models import CBPSettings
from wtal.models.branch import Branch, BranchOutput, Inputs
from wtal.models.cbp.co2net import ConsensusNet, consensus_terms, guidance, suppress, weighted


class EvidentialNet(Branch):
    """A `ConsensusNet` with two more loss terms: evidential video loss and uncertainty-guided attention."""

    pair_sampling = True

    def __init__(self, settings: CBPSettings, inputs: Inputs, num_classes: int) -> None:
        super().__init__()
        self.own = settings.method
        self.network = ConsensusNet(settings, inputs, num_classes)
        self.feature_dim = self.network.feature_dim
        self.video_probability = self.network.video_probability

    def forward(self, feature_BTX: Tensor, mask_BT: Tensor) -> BranchOutput:
        return self.network(feature_BTX, mask_BT)

    def own_loss(
        self, output: BranchOutput, label_BC: Tensor, mask_BT: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """CO2-Net's terms plus `evidential` and `uncertainty`."""
        terms = consensus_terms(output, label_BC, mask_BT, self.own.topk_ratio)
        suppressed_BTK = suppress(output.extra["logit_BTK"], output.attention_BT)
        terms["evidential"] = evidential_loss(
            suppressed_BTK[..., :-1], output.attention_BT, label_BC, mask_BT, self.own.attention_ratio
        )
        attentions = (output.attention_BT, output.extra["rgb_attention_BT"], output.extra["flow_attention_BT"])
        guide_BT = sum(guidance(output.extra["logit_BTK"], a_BT) for a_BT in attentions) / 3
        terms["uncertainty"] = uncertainty_guided(suppressed_BTK, guide_BT, mask_BT, progress, self.own.amplitude)
        return weighted(terms, self.own), terms


def evidential_loss(score_BTC: Tensor, attention_BT: Tensor, label_BC: Tensor, mask_BT: Tensor, ratio: int) -> Tensor:
    """Evidential cross-entropy of the mean score of the `T // ratio` most attended snippets.

    `sum_c g_c (log S - log alpha_c)` with the target g spread over the video's classes by 1/alpha, scaled by
    1 - u (u held constant), mean over videos.
    """
    losses = []
    for score_TC, attention_T, label_C, mask_T in zip(score_BTC, attention_BT, label_BC, mask_BT, strict=True):
        real_T = mask_T.nonzero()[:, 0]
        chosen = attention_T[real_T].topk(max(1, len(real_T) // ratio)).indices
        alpha_C = score_TC[real_T][chosen].mean(0).clamp(-10, 10).exp() + 1
        strength = alpha_C.sum()
        uncertainty = (len(alpha_C) / strength).detach()
        share_C = label_C / alpha_C
        target_C = (1 - uncertainty) * label_C.sum() * share_C / share_C.sum().clamp(min=1e-8)
        losses.append((target_C * (strength.log() - alpha_C.log())).sum())
    return torch.stack(losses).mean()


def uncertainty_guided(
    score_BTK: Tensor, guide_BT: Tensor, mask_BT: Tensor, progress: float, amplitude: float
) -> Tensor:
    """Guide loss weighted by each snippet's rank of uncertainty: sure snippets first, then all, then the others.

    The weight of rank i of T, 0 the least uncertain, is `A tanh(theta_i delta) + 1` with
    `theta_i = 1 - 2 (i + 0.5) / T` and `delta = 1 - 2 progress`: the surest has the largest weight at the start. Ranks,
    not sort indices, choose the weight (the published code gathers by the indices).
    """
    alpha_BTK = score_BTK.clamp(-10, 10).exp() + 1
    uncertainty_BT = (alpha_BTK.shape[-1] / alpha_BTK.sum(-1)).detach()
    weighted = []
    for u_T, guide_T, mask_T in zip(uncertainty_BT, guide_BT, mask_BT, strict=True):
        real = u_T[mask_T]
        rank_T = real.argsort(stable=True).argsort()
        theta_T = 1 - 2 * (rank_T + 0.5) / len(real)
        weight_T = amplitude * torch.tanh(theta_T * (1 - 2 * progress)) + 1
        weighted.append((weight_T * guide_T[mask_T]).mean())
    return torch.stack(weighted).mean()
