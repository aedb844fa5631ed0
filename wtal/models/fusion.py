"""Early fusion: CLIP embeddings fed to a CBP branch beside the I3D features, the fair-comparison baseline of Table 6.

Legend: B videos, T snippets, D I3D width, E CLIP width.
"""

import torch
from torch import Tensor, nn


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
