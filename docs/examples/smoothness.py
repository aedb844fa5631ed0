"""A loss term: inside a run of one pseudo-label, the score should not jump from snippet to snippet.

Legend: B videos, T snippets, C classes.
"""

import torch
from torch import Tensor


def smoothness_loss(log_p_BTC: Tensor, pseudo_BTC: Tensor) -> Tensor:
    """Mean of `(P[t + 1] - P[t])^2` over neighbours that carry the same sure pseudo-label; 0 where none do.

    `log_p_BTC` is log P of the branch that is taught; `pseudo_BTC` is 1 (foreground), 0 (background) or -1 (uncertain,
    and padding).
    """
    same_BTC = (pseudo_BTC[:, 1:] == pseudo_BTC[:, :-1]) & (pseudo_BTC[:, 1:] >= 0)
    jump_BTC = log_p_BTC.exp().diff(dim=1).square()
    return torch.where(same_BTC, jump_BTC, 0).sum() / same_BTC.sum().clamp(min=1)
