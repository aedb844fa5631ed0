"""The losses of the method, one function an equation (Ju et al., CVPR 2023).

Legend: B videos, T snippets, C classes, D feature width, N confident frames of the batch.
"""

import torch
from torch import Tensor

from wtal.models.branch import BranchOutput
from wtal.pseudo_labels import BACKGROUND, FOREGROUND
from wtal.training.settings import LossSettings


def bag_cross_entropy(video_logit_BC: Tensor, label_BC: Tensor) -> Tensor:
    """Equation (1): `-sum_c y_c log softmax_c(video score)`, mean over videos.

    `video_logit_BC` is the top-k mean of the frame logits. `y` is normalised to sum 1, so a video of several classes
    counts as much as one of a single class. A sum, not a mean, over classes: its size does not fall with C.
    """
    target_BC = label_BC / label_BC.sum(-1, keepdim=True).clamp(min=1)
    return -(target_BC * video_logit_BC.log_softmax(-1)).sum(-1).mean()


def taught_loss(
    output: BranchOutput,
    pseudo_BTC: Tensor,
    label_BC: Tensor,
    settings: LossSettings,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Equation (5): `L_all = L_kd(H', P) + lambda * L_fb(Psi+, Psi-)`, of the branch that is being taught.

    `pseudo_BTC` is what the other branch says (4). Weights, tau and the forms of the terms are `settings`; a term of
    weight 0 is left out. Returns the loss and the terms without their weights.
    """
    terms: dict[str, Tensor] = {}
    if settings.kd:
        terms["kd"] = distillation_loss(
            output.log_p_BTC, output.log_not_p_BTC, pseudo_BTC, label_BC, settings.kd_balance
        )
    if settings.fb:
        terms["fb"] = foreground_background_loss(
            output.feature_BTD, pseudo_BTC, label_BC, settings.temperature, settings.fb_max_frames, generator
        )
    weighted = [getattr(settings, name) * value for name, value in terms.items()]
    return torch.stack(weighted).sum(), terms


def distillation_loss(
    log_p_BTC: Tensor, log_not_p_BTC: Tensor, pseudo_BTC: Tensor, label_BC: Tensor, balance: str = "balanced"
) -> Tensor:
    """Equation (6): KL from hard ternary pseudo-labels to P over the confident entries: binary cross-entropy.

    `plain` is the paper's mean over all confident entries. There the zeros of absent classes are some 95 % of the
    entries and drown the rest, so `balanced` takes the mean of each kind by itself - foreground, background inside
    the video's classes, absent classes - and averages the kinds that occur. Zero where nothing is confident.
    """
    own_BTC = label_BC.bool()[:, None, :].expand_as(pseudo_BTC)
    foreground, background = pseudo_BTC == FOREGROUND, pseudo_BTC == BACKGROUND
    if balance == "plain":
        entry_BTC = -torch.where(foreground, log_p_BTC, log_not_p_BTC)
        return _mean_where(entry_BTC, foreground | background)
    if balance != "balanced":
        raise ValueError(f"balance {balance!r} is not one of 'balanced', 'plain'")
    kinds = [
        (-log_p_BTC, foreground),
        (-log_not_p_BTC, background & own_BTC),
        (-log_not_p_BTC, background & ~own_BTC),
    ]
    terms = torch.stack([_mean_where(value, where) for value, where in kinds])
    occurs = torch.stack([where.any() for _, where in kinds])
    return terms.sum() / occurs.sum().clamp(min=1)


def _mean_where(value: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, value, 0).sum() / where.sum().clamp(min=1)


def foreground_background_loss(
    feature_BTD: Tensor,
    pseudo_BTC: Tensor,
    label_BC: Tensor,
    temperature: float = 0.07,
    max_frames: int = 2048,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Equation (7), mean over anchors: each confident foreground frame against those of its class and all background.

    Psi+ of an anchor: the other confident foreground frames of the batch that share a class with it. Psi-: the
    confident background frames, those that are background for every class of their video. Features are
    L2-normalised here. The paper sums over anchors; the mean keeps the weight lambda free of T and B. The matrix is
    quadratic in frames, so above `max_frames` a random subset of each side is taken (seeded by `generator`).
    Zero where no anchor has a positive.
    """
    own_BTC = label_BC.bool()[:, None, :]
    foreground_BTC = (pseudo_BTC == FOREGROUND) & own_BTC
    is_foreground_BT = foreground_BTC.any(-1)
    is_background_BT = ((pseudo_BTC == BACKGROUND) | ~own_BTC).all(-1) & ~is_foreground_BT
    # padding is uncertain for every class, also in a video without labels
    is_background_BT &= (pseudo_BTC == BACKGROUND).any(-1)
    anchor = _choose(is_foreground_BT.flatten().nonzero()[:, 0], max_frames, generator)
    negative = _choose(is_background_BT.flatten().nonzero()[:, 0], max_frames, generator)

    # half precision is too coarse for exp(1 / tau)
    precise = torch.promote_types(feature_BTD.dtype, torch.float32)
    feature_ND = torch.nn.functional.normalize(feature_BTD.flatten(0, 1).to(precise), dim=-1)
    class_NC = foreground_BTC.flatten(0, 1)[anchor].float()
    same_NN = class_NC @ class_NC.T > 0
    same_NN.fill_diagonal_(False)
    to_foreground_NN = feature_ND[anchor] @ feature_ND[anchor].T / temperature
    to_background_NM = feature_ND[anchor] @ feature_ND[negative].T / temperature
    # -inf would give NaN gradients in rows without a positive; those rows are dropped below
    positive_N = to_foreground_NN.masked_fill(~same_NN, -1e4).logsumexp(-1)
    if len(negative):
        all_N = torch.logaddexp(positive_N, to_background_NM.logsumexp(-1))
    else:
        all_N = positive_N
    has_positive_N = same_NN.any(-1)
    return _mean_where(all_N - positive_N, has_positive_N) if len(anchor) else feature_BTD.sum() * 0


def _choose(index: Tensor, most: int, generator: torch.Generator | None) -> Tensor:
    if len(index) <= most:
        return index
    return index[torch.randperm(len(index), generator=generator)[:most].sort().values.to(index.device)]
