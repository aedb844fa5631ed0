"""The losses of the method, one function an equation (Ju et al., CVPR 2023).

Legend: B videos, T snippets, C classes, D feature width, N confident frames of the batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wtal.config.training import LossSettings
from wtal.models.branch import BranchOutput


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
            output.feature_BTD,
            pseudo_BTC,
            label_BC,
            settings.temperature,
            settings.fb_max_frames,
            generator,
            settings.fb_reduction,
        )
    weighted = [getattr(settings, name) * value for name, value in terms.items()]
    return torch.stack(weighted).sum(), terms


def distillation_loss(
    log_p_BTC: Tensor, log_not_p_BTC: Tensor, pseudo_BTC: Tensor, label_BC: Tensor, balance: str = "balanced"
) -> Tensor:
    """Equation (6): KL from hard ternary pseudo-labels to P over the confident entries: binary cross-entropy.

    `plain` is the paper's mean over all confident entries. There the zeros of absent classes are some 95 % of the
    entries and drown the rest, so `balanced` takes the mean of each kind by itself - foreground, background inside
    the video's classes, absent classes - and averages the kinds that occur; `classes` has two kinds, a video's own
    classes and absent ones, so that P stays the share of foreground. Zero where nothing is confident.
    """
    own_BTC = label_BC.bool()[:, None, :].expand_as(pseudo_BTC)
    foreground, background = pseudo_BTC == FOREGROUND, pseudo_BTC == BACKGROUND
    if balance == "plain":
        entry_BTC = -torch.where(foreground, log_p_BTC, log_not_p_BTC)
        return _mean_where(entry_BTC, foreground | background)
    kinds = {
        "balanced": [(-log_p_BTC, foreground), (-log_not_p_BTC, background & own_BTC)],
        "classes": [(-torch.where(foreground, log_p_BTC, log_not_p_BTC), (foreground | background) & own_BTC)],
    }
    if balance not in kinds:
        raise ValueError(f"balance {balance!r} is not one of 'plain', {', '.join(map(repr, kinds))}")
    kinds = [*kinds[balance], (-log_not_p_BTC, background & ~own_BTC)]
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
    reduction: str = "mean",
) -> Tensor:
    """Equation (7): each confident foreground frame against those of its class and all background.

    Psi+ of an anchor: the other confident foreground frames of the batch that share a class with it. Psi-: the
    confident background frames, those that are background for every class of their video. Features are
    L2-normalised here. The paper sums over anchors (`reduction="sum"`); the mean keeps the weight lambda free of T and
    B. The matrix is
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
    rows = feature_ND.index_select  # its gradient adds rows up, that of `feature_ND[anchor]` sorts them first
    to_foreground_NN = rows(0, anchor) @ rows(0, anchor).T / temperature
    to_background_NM = rows(0, anchor) @ rows(0, negative).T / temperature
    # Far enough below the least cosine to add nothing to a float32, near enough for exp not to underflow, which takes
    # ten times as long. -inf would give NaN gradients in rows without a positive; those rows are dropped below
    positive_N = to_foreground_NN.masked_fill(~same_NN, -1 / temperature - 40).logsumexp(-1)
    if len(negative):
        all_N = torch.logaddexp(positive_N, to_background_NM.logsumexp(-1))
    else:
        all_N = positive_N
    has_positive_N = same_NN.any(-1)
    if not len(anchor):
        return feature_BTD.sum() * 0
    if reduction == "sum":
        return torch.where(has_positive_N, all_N - positive_N, 0).sum()
    return _mean_where(all_N - positive_N, has_positive_N)


def _choose(index: Tensor, most: int, generator: torch.Generator | None) -> Tensor:
    if len(index) <= most:
        return index
    return index[torch.randperm(len(index), generator=generator)[:most].sort().values.to(index.device)]


FOREGROUND, BACKGROUND, UNCERTAIN = 1, 0, -1


def ternary_labels(p_BTC: Tensor, label_BC: Tensor, mask_BT: Tensor, high: float, low: float) -> Tensor:
    """Equation (4): int8 `[B, T, C]`.

    1 where `p > high` and the class is a label of the video; 0 where `p < low` or the class is not a label;
    -1 (uncertain) elsewhere and in padding. `high` and `low` may be tensors that broadcast to `[B, T, C]`.
    """
    present_B1C = label_BC.bool()[:, None, :]
    label = torch.full_like(p_BTC, UNCERTAIN, dtype=torch.int8)
    label[(p_BTC < low) | ~present_B1C] = BACKGROUND
    label[(p_BTC > high) & present_B1C] = FOREGROUND
    return label.masked_fill(~mask_BT[..., None], UNCERTAIN)


def coverage(label_BTC: Tensor, label_BC: Tensor, mask_BT: Tensor) -> dict[str, float]:
    """Shares of foreground, background and uncertain entries among the real snippets of each video's own classes."""
    own_BTC = label_BC.bool()[:, None, :] & mask_BT[..., None]
    chosen = label_BTC[own_BTC]
    total = max(1, chosen.numel())
    return {
        "foreground": (chosen == FOREGROUND).sum().item() / total,
        "background": (chosen == BACKGROUND).sum().item() / total,
        "uncertain": (chosen == UNCERTAIN).sum().item() / total,
    }


def keep_background(vlp: Sequence[np.ndarray], cbp: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The VLP's labels, with background wherever the CBP branch is sure of it."""
    pairs = zip(vlp, cbp, strict=True)
    return [np.where(cbp_TC == BACKGROUND, np.int8(BACKGROUND), vlp_TC) for vlp_TC, cbp_TC in pairs]


def drop_contradictions(teacher: Sequence[np.ndarray], student: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Teacher's labels with those made uncertain of which the student is as sure of the opposite."""
    agreed = []
    for taught_TC, own_TC in zip(teacher, student, strict=True):
        opposite = ((taught_TC == FOREGROUND) & (own_TC == BACKGROUND)) | (
            (taught_TC == BACKGROUND) & (own_TC == FOREGROUND)
        )
        agreed.append(np.where(opposite, np.int8(UNCERTAIN), taught_TC))
    return agreed
