"""Early fusion: CLIP embeddings fed to a CBP branch beside the I3D features, the fair-comparison baseline of Table 6.

Legend: B videos, T snippets, D I3D width, E CLIP width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wtal.models.branch import BranchOutput


class ConcatenateStreams(nn.Module):
    """All streams side by side: `[B, T, D + E]`."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.feature_dim = sum(widths)

    def forward(self, streams: list[Tensor]) -> Tensor:
        return torch.cat(streams, dim=-1)


class AverageStreams(nn.Module):
    """Mean of the first stream and linear maps of the others onto its width: `[B, T, D]`."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.feature_dim = widths[0]
        self.maps = nn.ModuleList(nn.Linear(width, widths[0]) for width in widths[1:])

    def forward(self, streams: list[Tensor]) -> Tensor:
        mapped = [streams[0], *(layer(stream) for layer, stream in zip(self.maps, streams[1:], strict=True))]
        return torch.stack(mapped).mean(0)


class StreamedBranch(nn.Module):
    """A branch with its input streams: picks, scales and joins them, then runs `branch` on `[B, T, D]`."""

    def __init__(self, streams: Sequence[str], norm: nn.Module, join: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.streams = tuple(streams)
        self.norm, self.join, self.branch = norm, join, branch
        self.feature_dim = branch.feature_dim
        self.pair_sampling = getattr(branch, "pair_sampling", False)

    def once(self) -> Tensor | None:
        """What the branch makes of its weights alone (class texts); none where there is no such thing."""
        return self.branch.once() if hasattr(self.branch, "once") else None

    def forward(self, feature: Mapping[str, Tensor], mask_BT: Tensor, made: Tensor | None = None) -> BranchOutput:
        """`made`: what `once` returned, to save its work where many batches meet the same weights."""
        joined_BTD = self.join([self.norm(name, feature[name]) for name in self.streams])
        return self.branch(joined_BTD, mask_BT) if made is None else self.branch(joined_BTD, mask_BT, made)


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


class _AverageWith(nn.Module):
    """I3D streams side by side, averaged with a linear map of the last stream."""

    def __init__(self, own: ConcatenateStreams, width: int) -> None:
        super().__init__()
        self.own, self.average = own, AverageStreams((own.feature_dim, width))
        self.feature_dim = own.feature_dim

    def forward(self, streams: list[Tensor]) -> Tensor:
        return self.average([self.own(streams[:-1]), streams[-1]])
