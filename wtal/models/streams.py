"""Early fusion: CLIP embeddings fed to a CBP branch beside the I3D features, the fair-comparison baseline of Table 6.

Legend: B videos, T snippets, D I3D width, E CLIP width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wtal.models.branch import Branch, BranchOutput


class ConcatenateStreams(nn.Module):
    """All streams side by side: `[B, T, D + E]`."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths, self.feature_dim = widths, sum(widths)

    def forward(self, streams: list[Tensor]) -> Tensor:
        return torch.cat(streams, dim=-1)


class JoinToEach(nn.Module):
    """The last stream beside each of the others: `[B, T, (D1 + E) + (D2 + E)]`, for methods that compare streams."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = tuple(width + widths[-1] for width in widths[:-1])
        self.feature_dim = sum(self.widths)

    def forward(self, streams: list[Tensor]) -> Tensor:
        return torch.cat([torch.cat([own, streams[-1]], dim=-1) for own in streams[:-1]], dim=-1)


class AverageStreams(nn.Module):
    """All streams but the last side by side, averaged with a linear map of the last: `[B, T, D]`."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.own = ConcatenateStreams(widths[:-1])
        self.widths, self.feature_dim = self.own.widths, self.own.feature_dim
        self.map = nn.Linear(widths[-1], self.feature_dim)

    def forward(self, streams: list[Tensor]) -> Tensor:
        return torch.stack([self.own(streams[:-1]), self.map(streams[-1])]).mean(0)


class StreamedBranch(nn.Module):
    """A branch with its input streams: picks, scales and joins them, runs `branch` on `[B, T, D]`, answers for it."""

    def __init__(self, streams: Sequence[str], norm: nn.Module, join: nn.Module, branch: Branch) -> None:
        super().__init__()
        self.streams = tuple(streams)
        self.norm, self.join, self.branch = norm, join, branch
        self.feature_dim, self.pair_sampling = branch.feature_dim, branch.pair_sampling
        self.own_loss, self.video_probability = branch.own_loss, branch.video_probability
        self.class_texts, self.start_at = branch.class_texts, branch.start_at
        self.after_step, self.learnt = branch.after_step, branch.learnt

    def forward(self, feature: Mapping[str, Tensor], mask_BT: Tensor, texts_CD: Tensor | None = None) -> BranchOutput:
        """`texts_CD`: what `class_texts` returned, to save its work where many batches meet the same weights."""
        joined_BTD = self.join([self.norm(name, feature[name]) for name in self.streams])
        return self.branch(joined_BTD, mask_BT) if texts_CD is None else self.branch(joined_BTD, mask_BT, texts_CD)


class StandardNorm(nn.Module):
    """Each stream scaled by mean and deviation per dimension, measured once on the training videos."""

    def __init__(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        for name, (mean_D, deviation_D) in statistics.items():
            self.register_buffer(f"{name}_mean_D", mean_D)
            self.register_buffer(f"{name}_deviation_D", deviation_D)

    def forward(self, name: str, x_BTD: Tensor) -> Tensor:
        return (x_BTD - getattr(self, f"{name}_mean_D")) / getattr(self, f"{name}_deviation_D")


class UnitNorm(nn.Module):
    """Each snippet's feature scaled to length sqrt(D), so that its entries stay near 1."""

    def forward(self, name: str, x_BTD: Tensor) -> Tensor:
        return nn.functional.normalize(x_BTD, dim=-1) * x_BTD.shape[-1] ** 0.5


class NoNorm(nn.Module):
    """Features as they are."""

    def forward(self, name: str, x_BTD: Tensor) -> Tensor:
        return x_BTD
