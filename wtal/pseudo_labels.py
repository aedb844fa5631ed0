"""Ternary pseudo-labels, equation (4): what one branch is sure of and teaches the other.

Legend: B videos, T snippets, C classes.
"""

import torch
from torch import Tensor

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
