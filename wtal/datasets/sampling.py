"""Snippets of a video for one training step, and batches of videos.

Legend: B videos, N all training videos, T snippets of a video, S snippets of a sample, C classes, D feature width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feature_extraction.errors import UserError


def consecutive(length: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices `[S]` of `size` consecutive snippets at a random place; all of them where the video is not longer.

    METHOD: the paper's own sampling (1000 snippets on THUMOS14, 400 on ActivityNet 1.2).
    """
    if length <= size:
        return np.arange(length)
    start = int(rng.integers(length - size + 1))
    return np.arange(start, start + size)


def random_perturb(length: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices `[size]`: one random snippet of each of `size` equal bins of the video; short videos repeat snippets.

    The sampling of UM, BaSNet, CoLA and CO2-Net.
    """
    edges = np.arange(size + 1) * length / size
    return np.minimum((edges[:-1] + rng.random(size) * (edges[1:] - edges[:-1])).astype(np.int64), length - 1)


def uniform(length: int, size: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Indices of at most `size` snippets at equal distances, from the first one; no randomness.

    UM's test-time sampling: `floor(arange(size) * T / size)` where the video is longer, else every snippet.
    """
    return np.arange(length) if length <= size else np.arange(size) * length // size


SAMPLINGS: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "consecutive": consecutive,
    "random_perturb": random_perturb,
    "uniform": uniform,
}


@dataclass(frozen=True)
class Batch:
    """Videos side by side, padded with zeros at the end."""

    video_ids: tuple[str, ...]
    feature: dict[str, np.ndarray]
    """Stream name to float32 `[B, T, D]`."""
    mask_BT: np.ndarray
    """bool, True where a snippet is real."""
    label_BC: np.ndarray
    """float32, 1 for the video's classes."""

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in self.feature.items())
        return f"Batch({len(self.video_ids)} videos, {shapes})"


def pad_batch(
    video_ids: Sequence[str], features: Sequence[Mapping[str, np.ndarray]], label_BC: np.ndarray, length: int = 0
) -> Batch:
    """Put videos' features (one mapping of stream to `[T, D]` each) into one padded batch.

    `length` snippets long (0: as the longest video). A video longer than that is a `ValueError`, one without
    snippets too.
    """
    sizes = [len(next(iter(feature.values()))) for feature in features]
    width = length or max(sizes)
    if min(sizes) < 1 or max(sizes) > width:
        raise ValueError(f"cannot pad videos of {min(sizes)} to {max(sizes)} snippets to {width}")
    mask_BT = np.arange(width) < np.asarray(sizes)[:, None]
    padded = {}
    for name, first_TD in features[0].items():
        padded[name] = np.zeros((len(features), width, first_TD.shape[1]), dtype=np.float32)
        for row, feature in enumerate(features):
            padded[name][row, : sizes[row]] = feature[name]
    return Batch(tuple(video_ids), padded, mask_BT, np.asarray(label_BC, dtype=np.float32))


def label_matrix(labels: Sequence[Sequence[str]], classes: Sequence[str]) -> np.ndarray:
    """Multi-hot float32 `[N, C]` of videos' class names; a name that is no class is a `UserError`."""
    index = {name: column for column, name in enumerate(classes)}
    label_NC = np.zeros((len(labels), len(classes)), dtype=np.float32)
    for row, names in enumerate(labels):
        for name in names:
            if name not in index:
                raise UserError(f"label {name!r} is not one of the {len(classes)} classes ({', '.join(classes[:5])}, ...)")
            label_NC[row, index[name]] = 1
    return label_NC


def draw_batch(label_NC: np.ndarray, size: int, rng: np.random.Generator, pairs: int = 0) -> np.ndarray:
    """Indices `[size]` of the videos of one step.

    The first `2 * pairs` are pairs (0, 1), (2, 3), ... that share a class, the class drawn uniformly among those with
    two videos or more: what CO2-Net's and DELU's co-activity loss needs. The rest is drawn uniformly, without
    repetition as long as there are enough videos. Raises `UserError` where no class has two videos.
    """
    if 2 * pairs > size:
        raise UserError(f"{pairs} pairs do not fit in a batch of {size}")
    chosen: list[int] = []
    if pairs:
        paired = np.flatnonzero(label_NC.sum(axis=0) >= 2)
        if not len(paired):
            raise UserError("no class has two training videos, so no pairs can be drawn; set the number of pairs to 0")
        for column in rng.choice(paired, pairs):
            chosen.extend(rng.choice(np.flatnonzero(label_NC[:, column]), 2, replace=False).tolist())
    rest = size - len(chosen)
    free = np.setdiff1d(np.arange(len(label_NC)), chosen)
    if len(free) >= rest:
        chosen.extend(rng.choice(free, rest, replace=False).tolist())
    else:
        chosen.extend(rng.choice(len(label_NC), rest, replace=True).tolist())
    return np.asarray(chosen, dtype=np.int64)
