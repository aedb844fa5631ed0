"""What the benchmarks share: a plain training loop over tensors, and rank correlation.

Legend: N videos, T snippets, D feature width, C classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from wtal.models.pooling.head import PoolingHead, make_exponent_optimizer, parameter_groups


def train(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    videos: int,
    *,
    epochs: int,
    batch: int,
    lr: float,
    after_step: Callable[[], None] | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Adam on the weights, the heads' own optimiser on their exponents; `loss` takes the indices of a
    batch."""
    ordinary, _ = parameter_groups(model)
    optimizers = [torch.optim.Adam(ordinary, lr)]
    if (own := make_exponent_optimizer(model)) is not None:
        optimizers.append(own)
    heads = [part for part in model.modules() if isinstance(part, PoolingHead)]
    model.train()
    for epoch in range(epochs):
        for index in torch.randperm(videos).split(batch):
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss(index).backward()
            if after_step is not None:
                after_step()
            for optimizer in optimizers:
                optimizer.step()
            for head in heads:
                head.project()
        if after_epoch is not None:
            after_epoch(epoch)
    model.eval()


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho; NaN where one side is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def unit_rows(generator: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Random directions, float32 `[rows, width]`."""
    vectors = generator.standard_normal((rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
