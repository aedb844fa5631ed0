"""Which snippets of a video one training step sees.

Legend: T snippets of a video, S snippets of a sample.
"""

from collections.abc import Callable

import numpy as np


def consecutive(length: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices `[S]` of `size` consecutive snippets at a random place; all of them where the video is not
    longer.

    The target paper's sampling (1000 snippets on THUMOS14, 400 on ActivityNet 1.2).
    """
    if length <= size:
        return np.arange(length)
    start = int(rng.integers(length - size + 1))
    return np.arange(start, start + size)


def random_perturb(length: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices `[size]`: one random snippet out of each of `size` equal bins; short videos repeat snippets.

    The training sampling of UM, BaSNet, CoLA and CO2-Net.
    """
    edges = np.arange(size + 1) * length / size
    drawn = edges[:-1] + rng.random(size) * np.diff(edges)
    return np.minimum(drawn.astype(np.int64), length - 1)


def uniform(length: int, size: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Indices `[S]` of at most `size` snippets at equal distances; every snippet where the video is not
    longer.

    UM's test-time sampling, `floor(arange(size) * T / size)`; nothing in it is random.
    """
    return np.arange(length) if length <= size else np.arange(size) * length // size


SAMPLINGS: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "consecutive": consecutive,
    "random_perturb": random_perturb,
    "uniform": uniform,
}
