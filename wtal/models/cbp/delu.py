"""DELU (Chen et al., ECCV 2022) as a CBP branch: CO2-Net's network with evidential uncertainty in the losses.

Evidence e = exp(clamp(s, -10, 10)), Dirichlet alpha = e + 1, S = sum alpha, uncertainty u = K / S.

Legend: B videos, T snippets, C classes (K = C + 1 with background).
"""

import torch
from torch import Tensor

from wtal.config.models import CBPSettings
from wtal.models.branch import Branch, BranchOutput, Inputs
from wtal.models.cbp.co2net import ConsensusNet, consensus_terms, mean_guidance, weighted


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
        own, guide_BT = self.own, mean_guidance(output)
        terms = consensus_terms(output, label_BC, mask_BT, own.topk_ratio, guide_BT)
        suppressed_BTK = output.extra["suppressed_BTK"]
        terms["evidential"] = evidential_loss(
            suppressed_BTK[..., :-1], output.attention_BT, label_BC, mask_BT, own.attention_ratio, own.evidence
        )
        terms["uncertainty"] = uncertainty_guided(
            suppressed_BTK, guide_BT, mask_BT, progress, own.amplitude, own.ordering
        )
        return weighted(terms, self.own), terms


def evidential_loss(
    score_BTC: Tensor, attention_BT: Tensor, label_BC: Tensor, mask_BT: Tensor, ratio: int, evidence: str = "exp"
) -> Tensor:
    """Evidential loss of the mean score of the `T // ratio` most attended snippets, mean over videos.

    `exp`: cross-entropy `sum_c g_c (log S - log alpha_c)` with the target g spread over the video's classes by 1/alpha,
    scaled by 1 - u (u held constant). `relu` (published for ActivityNet): evidence max(s, 0), and the squared error
    `sum_c (y_c - alpha_c / S)^2`.
    """
    losses = []
    for score_TC, attention_T, label_C, mask_T in zip(score_BTC, attention_BT, label_BC, mask_BT, strict=True):
        real_T = mask_T.nonzero()[:, 0]
        chosen = attention_T[real_T].topk(max(1, len(real_T) // ratio)).indices
        score_C = score_TC[real_T][chosen].mean(0)
        if evidence == "relu":
            alpha_C = score_C.relu() + 1
            losses.append((label_C - alpha_C / alpha_C.sum()).square().sum())
            continue
        alpha_C = score_C.clamp(-10, 10).exp() + 1
        strength = alpha_C.sum()
        uncertainty = (len(alpha_C) / strength).detach()
        share_C = label_C / alpha_C
        target_C = (1 - uncertainty) * label_C.sum() * share_C / share_C.sum().clamp(min=1e-8)
        losses.append((target_C * (strength.log() - alpha_C.log())).sum())
    return torch.stack(losses).mean()


def uncertainty_guided(
    score_BTK: Tensor, guide_BT: Tensor, mask_BT: Tensor, progress: float, amplitude: float, ordering: str = "published"
) -> Tensor:
    """Guide loss with a weight a snippet that follows its uncertainty and moves with `progress`; mean over videos.

    Of a video of T snippets, sorted by rising uncertainty, `sorted_i` is the one in place i. The curve is
    `A tanh(theta_i delta) + 1` with `theta_i = 2 (i + 0.5) / T - 1` and `delta = 1 - 2 progress`. `published`: snippet
    j weighs `curve[sorted_j]`, as the published code gathers it. `ranked`: the snippet in place i weighs
    `curve[T - 1 - i]`, the paper's order: the surest weigh most at the start, the others at the end.
    """
    alpha_BTK = score_BTK.clamp(-10, 10).exp() + 1
    uncertainty_BT = ((alpha_BTK.shape[-1] - 1) / alpha_BTK.sum(-1)).detach()
    losses = []
    for uncertainty_T, guide_T, mask_T in zip(uncertainty_BT, guide_BT, mask_BT, strict=True):
        sorted_T = uncertainty_T[mask_T].argsort(stable=True)
        length = len(sorted_T)
        theta_T = 2 * (torch.arange(length, device=guide_T.device, dtype=guide_T.dtype) + 0.5) / length - 1
        curve_T = amplitude * torch.tanh(theta_T * (1 - 2 * progress)) + 1
        weight_T = curve_T[sorted_T] if ordering == "published" else curve_T.flip(0)[sorted_T.argsort()]
        losses.append((weight_T * guide_T[mask_T]).mean())
    return torch.stack(losses).mean()
