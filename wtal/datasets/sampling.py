"""Which snippets of a video one training step sees, and padding to one length.

Legend: B videos, T snippets of a video, S snippets of a sample, D feature width.
"""

from collections.abc import Callable, Sequence

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


def pad(features: Sequence[np.ndarray], length: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Videos' features `[T, D]` side by side: (float32 `[B, S, D]` with zeros at the end, bool mask `[B,
    S]`).

    S is `length`, or the longest video's T where that is 0. Raises `ValueError` for a video that is longer
    than S.
    """
    lengths = np.array([len(feature_TD) for feature_TD in features])
    width = length or int(lengths.max())
    if lengths.max() > width:
        raise ValueError(f"a video of {lengths.max()} snippets does not fit in {width}")
    mask_BS = np.arange(width) < lengths[:, None]
    padded_BSD = np.zeros((*mask_BS.shape, features[0].shape[1]), dtype=np.float32)
    for row, feature_TD in enumerate(features):
        padded_BSD[row, : lengths[row]] = feature_TD
    return padded_BSD, mask_BS
