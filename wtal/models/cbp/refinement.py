"""A second look at frame scores that only frame labels train.

A bag loss asks for some frames of a video, not for where an action ends, so a network that sees far learns the bag's
label in every frame. Labels of frames leave no such way out: what they alone train may look at a frame's neighbours.

Legend: B videos, T snippets, W feature width, C classes, N own width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.models.layers import BatchDropout, MaskedConv1d


class Refinement(nn.Module):
    """What to add to frame logits, from features and logits of a snippet and its two neighbours; 0 at first.

    With the backbone's own convolution a frame so sees two snippets to each side.
    """

    def __init__(self, feature_dim: int, num_classes: int, width: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.project = nn.Linear(feature_dim + num_classes, width)
        self.look = MaskedConv1d(width, width, kernel=3)
        self.dropout = BatchDropout(dropout)
        self.add = nn.Linear(width, num_classes)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(self.add.bias)

    def forward(self, feature_BTW: Tensor, logit_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """`[B, T, C]`."""
        # logits grow without bound while they are taught; their sign and size near 0 say enough
        x_BTN = F.relu(self.project(torch.cat([feature_BTW, logit_BTC.tanh()], dim=-1)))
        return self.add(x_BTN + self.dropout(F.relu(self.look(x_BTN, mask_BT))))
