"""The main method's own CBP backbones: a local transformer and a temporal convolution. `[B, T, D]` to `[B, T, W]`.

Legend: B videos, T snippets, D input width, W feature width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.models.layers import BatchDropout, MaskedConv1d, TransformerBlock


class TransformerBackbone(nn.Module):
    """Transformer over the snippets (multi-head self-attention, layer norm, MLP), as the paper has it.

    `window` (snippets to each side) is the guard of localisation, together with strong dropout on the input and on
    the features: attention over the whole video (`window=0`) lets each frame learn the bag's label.
    """

    def __init__(
        self, width_in: int, width: int, layers: int, heads: int, window: int, dropout_in: float, dropout_out: float
    ) -> None:
        super().__init__()
        self.feature_dim = width
        self.dropout_in, self.dropout_out = BatchDropout(dropout_in), BatchDropout(dropout_out)
        self.project = nn.Linear(width_in, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, window) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTW = self.project(self.dropout_in(x_BTD))
        for block in self.blocks:
            x_BTW = block(x_BTW, mask_BT)
        return self.dropout_out(self.norm(x_BTW))


class ConvolutionBackbone(nn.Module):
    """One convolution over time between two dropouts: local by construction."""

    def __init__(self, width_in: int, width: int, kernel: int, dropout_in: float, dropout_out: float) -> None:
        super().__init__()
        self.feature_dim = width
        self.dropout_in, self.dropout_out = BatchDropout(dropout_in), BatchDropout(dropout_out)
        self.convolution = MaskedConv1d(width_in, width, kernel)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return self.dropout_out(F.relu(self.convolution(self.dropout_in(x_BTD), mask_BT)))


class MultiScaleBackbone(nn.Module):
    """Convolutions of several dilations side by side, joined by a linear layer: short and long actions at once."""

    def __init__(
        self, width_in: int, width: int, dilations: tuple[int, ...], dropout_in: float, dropout_out: float
    ) -> None:
        super().__init__()
        self.feature_dim = width
        self.dropout_in, self.dropout_out = BatchDropout(dropout_in), BatchDropout(dropout_out)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width_in, width, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        self.join = nn.Linear(width * len(dilations), width)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BDT = (self.dropout_in(x_BTD) * mask_BT[..., None]).transpose(1, 2)
        scales_BST = torch.cat([convolution(x_BDT) for convolution in self.convolutions], dim=1)
        return self.dropout_out(F.relu(self.join(F.relu(scales_BST.transpose(1, 2)))))
