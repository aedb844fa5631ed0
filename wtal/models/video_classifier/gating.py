"""Context Gating, mixture of experts, and batch normalisation that sees real frames only (arXiv 1706.06905).

Legend: B videos, T snippets, D feature width, C classes, E experts, N any number of rows.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassScores(NamedTuple):
    """Video-level class probabilities in log space."""

    log_p_BC: Tensor
    """log p."""
    log_1mp_BC: Tensor
    """log(1 - p)."""

    @property
    def logit_BC(self) -> Tensor:
        """log p - log(1 - p)."""
        return self.log_p_BC - self.log_1mp_BC


class MaskedBatchNorm(nn.Module):
    """Batch normalisation of `[B, T, D]` with statistics over real frames only, so padding changes
    nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Normalise the real frames; padding comes out as 0."""
        rows_ND = normalise_rows(self.norm, x_BTD[mask_BT])
        return torch.zeros_like(x_BTD, dtype=rows_ND.dtype).masked_scatter(mask_BT.unsqueeze(2), rows_ND)


def normalise_rows(norm: nn.BatchNorm1d, x_ND: Tensor) -> Tensor:
    """Apply batch normalisation; a single row in training has no variance and takes the running
    statistics."""
    if norm.training and x_ND.shape[0] == 1:
        return F.batch_norm(x_ND, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    return norm(x_ND)


class ContextGating(nn.Module):
    """Y = sigmoid(W X + b) * X: every activation re-weighted by all the others.

    `batch_norm` puts batch normalisation in place of the bias; `remove_diagonal` keeps an activation from
    gating itself.
    """

    def __init__(self, width: int, batch_norm: bool = True, remove_diagonal: bool = False) -> None:
        super().__init__()
        self.weight_DD = nn.Parameter(torch.randn(width, width) / math.sqrt(width))
        self.bias_D = None if batch_norm else nn.Parameter(torch.zeros(width))
        self.norm = nn.BatchNorm1d(width) if batch_norm else None
        self.remove_diagonal = remove_diagonal

    def gate_logits(self, x_ND: Tensor) -> Tensor:
        """What the sigmoid is taken of, `[N, D]`."""
        weight_DD = self.weight_DD
        if self.remove_diagonal:
            weight_DD = weight_DD - torch.diag(weight_DD.diagonal())
        gate_ND = x_ND @ weight_DD.T
        return gate_ND + self.bias_D if self.norm is None else normalise_rows(self.norm, gate_ND)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Gate `[N, D]`; each value keeps its sign and does not grow."""
        return x_ND * self.gate_logits(x_ND).sigmoid()

    def gate_scores(self, scores: ClassScores) -> ClassScores:
        """Gate class probabilities: p' = g p <= p, and 1 - p' = (1 - p) + p (1 - g), both in log space."""
        gate_BC = self.gate_logits(scores.log_p_BC.exp())
        return ClassScores(
            scores.log_p_BC + F.logsigmoid(gate_BC),
            torch.logaddexp(scores.log_1mp_BC, scores.log_p_BC + F.logsigmoid(-gate_BC)),
        )


class Logistic(nn.Module):
    """One sigmoid per class."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x_BD: Tensor) -> ClassScores:
        """`[B, D]` -> scores `[B, C]`."""
        logit_BC = self.linear(x_BD)
        logit_BC = logit_BC.to(torch.promote_types(logit_BC.dtype, torch.float32))
        return ClassScores(F.logsigmoid(logit_BC), F.logsigmoid(-logit_BC))


class MixtureOfExperts(nn.Module):
    """p = sum_e g_e s_e per class: E sigmoid experts and one dummy that says 0, so p <= 1 - g_dummy."""

    def __init__(self, width: int, num_classes: int, experts: int = 2) -> None:
        super().__init__()
        self.experts, self.num_classes = experts, num_classes
        self.gate = nn.Linear(width, num_classes * (experts + 1), bias=False)
        self.expert = nn.Linear(width, num_classes * experts)

    def forward(self, x_BD: Tensor) -> ClassScores:
        """`[B, D]` -> scores `[B, C]`."""
        gate_BCE = self.gate(x_BD).view(-1, self.num_classes, self.experts + 1)
        expert_BCE = self.expert(x_BD).view(-1, self.num_classes, self.experts)
        dtype = torch.promote_types(gate_BCE.dtype, torch.float32)
        log_g_BCE, expert_BCE = gate_BCE.to(dtype).log_softmax(dim=2), expert_BCE.to(dtype)
        log_real_BCE, log_dummy_BC1 = log_g_BCE[..., :-1], log_g_BCE[..., -1:]
        log_p_BC = (log_real_BCE + F.logsigmoid(expert_BCE)).logsumexp(dim=2)
        log_1mp_BC = torch.cat([log_real_BCE + F.logsigmoid(-expert_BCE), log_dummy_BC1], dim=2).logsumexp(dim=2)
        return ClassScores(log_p_BC, log_1mp_BC)
