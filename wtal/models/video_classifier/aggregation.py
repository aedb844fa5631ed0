"""Frame features to one video descriptor: NetVLAD, NetRVLAD, NetFV, soft bag of words (arXiv 1706.06905).

    x [B, T, D] --> soft assignment a [B, T, K] --> sums over real frames --> L2 norms --> descriptor [B, F]

Each descriptor is normalise(sum_t v_t). The sums are additive over frames, which is what frame relevance
(`wtal.models.video_classifier.relevance`) builds on. Legend: B videos, T snippets (padded), D feature width,
K clusters, F descriptor width, N any number of videos.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from feature_extraction.errors import UserError
from wtal.models.video_classifier.gating import MaskedBatchNorm

SQUARED_NORM_FLOOR = 1e-12


class Sums(Protocol):
    """An additive statistic of assigned frames and its normalisation."""

    descriptor_dim: int

    def sums(self, a_NTK: Tensor, x_NTD: Tensor) -> Tensor: ...

    def scale(self, sum_NKF: Tensor) -> Tensor: ...

    def flatten(self, scaled_NKF: Tensor) -> Tensor: ...


def _inverse_norm(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    # the floor keeps an empty cluster and an empty video at 0 with a finite gradient
    return (x.square().sum(dim=dim, keepdim=True) + SQUARED_NORM_FLOOR).rsqrt()


def _intra_then_global(sum_NKF: Tensor) -> Tensor:
    intra_NK1 = _inverse_norm(sum_NKF, (2,))
    return intra_NK1 * _inverse_norm(sum_NKF * intra_NK1, (1, 2))


class VLAD(nn.Module):
    """V_k = sum_t a_k(x_t) (x_t - c_k), each cluster L2-normalised, then the whole. Without centres:
    NetRVLAD."""

    def __init__(self, width: int, clusters: int, centres: bool = True) -> None:
        super().__init__()
        self.descriptor_dim = width * clusters
        self.centre_KD = nn.Parameter(torch.randn(clusters, width) / math.sqrt(width)) if centres else None

    def sums(self, a_NTK: Tensor, x_NTD: Tensor) -> Tensor:
        """Residual sums `[N, K, D]`."""
        sum_NKD = a_NTK.transpose(1, 2) @ x_NTD
        return sum_NKD if self.centre_KD is None else sum_NKD - a_NTK.sum(dim=1).unsqueeze(2) * self.centre_KD

    def scale(self, sum_NKF: Tensor) -> Tensor:
        """The factors of both norms, broadcastable to the sums."""
        return _intra_then_global(sum_NKF)

    def flatten(self, scaled_NKF: Tensor) -> Tensor:
        """`[N, K * D]`."""
        return scaled_NKF.flatten(1)


class FisherVector(nn.Module):
    """NetFV: first order sum_t a (x - c) / s, second order sum_t a (((x - c) / s)^2 - 1), s = v^2 + 1e-6
    learnt.

    Each order is normalised per cluster, then as a whole. `loupe_compat` normalises the second order only as
    a whole, as the public LOUPE code does.
    """

    def __init__(self, width: int, clusters: int, loupe_compat: bool = False) -> None:
        super().__init__()
        self.descriptor_dim = 2 * width * clusters
        self.loupe_compat = loupe_compat
        self.centre_KD = nn.Parameter(torch.randn(clusters, width) / math.sqrt(width))
        self.deviation_KD = nn.Parameter(1 + torch.randn(clusters, width) / math.sqrt(width))

    def sums(self, a_NTK: Tensor, x_NTD: Tensor) -> Tensor:
        """First and second order side by side, `[N, K, 2 D]`."""
        s_KD, c_KD = self.deviation_KD.square() + 1e-6, self.centre_KD
        weight_NK1 = a_NTK.sum(dim=1).unsqueeze(2)
        sum_NKD = a_NTK.transpose(1, 2) @ x_NTD
        square_NKD = a_NTK.transpose(1, 2) @ x_NTD.square()
        first_NKD = (sum_NKD - weight_NK1 * c_KD) / s_KD
        second_NKD = (square_NKD - 2 * c_KD * sum_NKD + weight_NK1 * c_KD.square()) / s_KD.square() - weight_NK1
        return torch.cat([first_NKD, second_NKD], dim=2)

    def scale(self, sum_NKF: Tensor) -> Tensor:
        """The factors of all norms, the shape of the sums."""
        first_NKD, second_NKD = sum_NKF.chunk(2, dim=2)
        first = _intra_then_global(first_NKD).expand_as(first_NKD)
        second = _inverse_norm(second_NKD, (1, 2)) if self.loupe_compat else _intra_then_global(second_NKD)
        return torch.cat([first, second.expand_as(second_NKD)], dim=2)

    def flatten(self, scaled_NKF: Tensor) -> Tensor:
        """`[N, 2 K D]`."""
        return scaled_NKF.flatten(1)


class BagOfWords(nn.Module):
    """Soft-DBoW: sum_t a_k(x_t), L2-normalised."""

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.descriptor_dim = clusters

    def sums(self, a_NTK: Tensor, x_NTD: Tensor) -> Tensor:
        """Soft counts `[N, K, 1]`."""
        return a_NTK.sum(dim=1).unsqueeze(2)

    def scale(self, sum_NKF: Tensor) -> Tensor:
        """One over the L2 norm."""
        return _inverse_norm(sum_NKF, (1, 2))

    def flatten(self, scaled_NKF: Tensor) -> Tensor:
        """`[N, K]`."""
        return scaled_NKF.flatten(1)


class Mean(nn.Module):
    """The mean of the real frames: the baseline of the clustering aggregators. Ignores the assignment."""

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.descriptor_dim = width

    def sums(self, a_NTK: Tensor, x_NTD: Tensor) -> Tensor:
        """Sum and count, `[N, 1, D + 1]`; the assignments of a real frame sum to 1."""
        return torch.cat([x_NTD.sum(dim=1), a_NTK.sum(dim=(1, 2)).unsqueeze(1)], dim=1).unsqueeze(1)

    def scale(self, sum_NKF: Tensor) -> Tensor:
        """One over the count."""
        return 1 / sum_NKF[:, :, -1:].clamp(min=1)

    def flatten(self, scaled_NKF: Tensor) -> Tensor:
        """`[N, D]`, without the count."""
        return scaled_NKF[:, 0, :-1]


AGGREGATIONS: dict[str, Callable[[int, int], Sums]] = {
    "netvlad": lambda width, clusters: VLAD(width, clusters),
    "netrvlad": lambda width, clusters: VLAD(width, clusters, centres=False),
    "netfv": lambda width, clusters: FisherVector(width, clusters),
    "netfv_loupe": lambda width, clusters: FisherVector(width, clusters, loupe_compat=True),
    "soft_dbow": lambda width, clusters: BagOfWords(width, clusters),
    "mean": lambda width, clusters: Mean(width, clusters),
}


class Aggregator(nn.Module):
    """Frames of one stream to a descriptor; padding has no influence, in training and in evaluation.

    Batch normalisation over the real frames comes before the assignment's softmax, and before everything
    where `input_norm` says so.
    """

    def __init__(self, name: str, width: int, clusters: int, batch_norm: bool = True, input_norm: bool = True) -> None:
        super().__init__()
        if name not in AGGREGATIONS:
            raise UserError(f"unknown aggregation {name!r}; allowed: {', '.join(AGGREGATIONS)}")
        if clusters < 1:
            raise UserError(f"clusters must be at least 1, got {clusters}")
        self.input_norm = MaskedBatchNorm(width) if input_norm else None
        self.assignment = nn.Linear(width, clusters, bias=not batch_norm)
        nn.init.normal_(self.assignment.weight, std=1 / math.sqrt(width))
        self.assignment_norm = MaskedBatchNorm(clusters) if batch_norm else None
        self.pool = AGGREGATIONS[name](width, clusters)
        self.descriptor_dim = self.pool.descriptor_dim

    def assign(self, x_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised frames `[B, T, D]` and soft assignments `[B, T, K]`, both 0 on padding."""
        real_BT1 = mask_BT.unsqueeze(2)
        x_BTD = x_BTD.masked_fill(~real_BT1, 0)
        if self.input_norm is not None:
            x_BTD = self.input_norm(x_BTD, mask_BT)
        logit_BTK = self.assignment(x_BTD)
        if self.assignment_norm is not None:
            logit_BTK = self.assignment_norm(logit_BTK, mask_BT)
        # sums over hundreds of frames lose too much in half precision
        dtype = torch.promote_types(logit_BTK.dtype, torch.float32)
        return x_BTD.to(dtype), logit_BTK.to(dtype).softmax(dim=2).masked_fill(~real_BT1, 0)

    def describe(self, sum_NKF: Tensor, scale: Tensor | None = None) -> Tensor:
        """Normalise sums `[N, K, F]` (by their own norms, or by a given `scale`) into descriptors."""
        return self.pool.flatten(sum_NKF * (self.pool.scale(sum_NKF) if scale is None else scale))

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """`[B, T, D]`, `[B, T]` -> `[B, descriptor_dim]`. A video without frames gives finite values."""
        x_BTD, a_BTK = self.assign(x_BTD, mask_BT.bool())
        return self.describe(self.pool.sums(a_BTK, x_BTD))
