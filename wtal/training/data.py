"""Batches of training videos. Which videos and which snippets a step sees is a function of (seed, step) alone.

A sampler without state needs no saving: a resumed run, and each of several processes, draws what the unbroken single
run draws.

Legend: B videos, T snippets, C classes, D feature width, N training videos.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wtal.datasets.features import FeatureSet


@dataclass(frozen=True)
class Batch:
    """One step's videos. Labels cover the whole batch; features only this process's rows of it."""

    feature: dict[str, Tensor]
    """Stream name to float32 `[B_here, T, D]`."""
    mask_here_BT: Tensor
    """Real snippets of this process's rows."""
    mask_BT: Tensor
    label_BC: Tensor
    """Video-level classes, float 0 or 1."""
    videos: np.ndarray
    """Index of each video, `[B]`."""
    snippets: list[np.ndarray]
    """Which snippets of each video, one index array a row."""


class TrainingVideos:
    """Training videos with their video-level labels; features stay on disk, memory-mapped."""

    def __init__(self, features: FeatureSet, ids: Sequence[str], label_NC: np.ndarray) -> None:
        self.features, self.ids, self.label_NC = features, list(ids), label_NC.astype(np.float32)
        self.lengths = np.array([features.length(video_id) for video_id in self.ids])

    def __len__(self) -> int:
        return len(self.ids)

    def shuffled(self, seed: int, step: int, batch: int) -> np.ndarray:
        """Video indices of a step: consecutive stretches of one endless row of permutations, `[B]`."""
        position = np.arange(step * batch, (step + 1) * batch)
        epochs, places = np.divmod(position, len(self))
        orders = {epoch: np.random.default_rng([seed, 0, epoch]).permutation(len(self)) for epoch in np.unique(epochs)}
        return np.array([orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)])

    def paired(self, seed: int, step: int, batch: int, pairs: int = 3) -> np.ndarray:
        """Video indices of a step that begins with `pairs` pairs sharing a class, `[B]` (CO2-Net's sampler).

        Classes are drawn uniformly with replacement among those of at least two videos, the pair without, the rest
        of the batch at random.
        """
        rng = np.random.default_rng([seed, 1, step])
        shared = np.flatnonzero(self.label_NC.sum(0) >= 2)
        chosen: list[int] = []
        if len(shared):
            for label in rng.choice(shared, min(pairs, batch // 2)):
                chosen += rng.choice(np.flatnonzero(self.label_NC[:, label]), 2, replace=False).tolist()
        chosen += rng.integers(len(self), size=batch - len(chosen)).tolist()
        return np.array(chosen)

    def crops(self, videos: np.ndarray, seed: int, step: int, size: int, sampling: str) -> list[np.ndarray]:
        """At most `size` snippets of each of a step's videos, drawn by `SAMPLINGS[sampling]`: an index array each."""
        rng = np.random.default_rng([seed, 2, step])
        return [SAMPLINGS[sampling](int(self.lengths[video]), size, rng) for video in videos]

    def batch(self, videos: np.ndarray, snippets: list[np.ndarray], rows: slice, streams: Sequence[str]) -> Batch:
        """These snippets of these videos, padded to the longest; features of this process's `rows` alone."""
        lengths = np.array([len(index) for index in snippets])
        longest = int(lengths.max())
        mask_BT = torch.from_numpy(np.arange(longest)[None] < lengths[:, None])
        here = range(len(videos))[rows]
        feature: dict[str, Tensor] = {}
        for slot, row in enumerate(here):
            index = snippets[row]
            # one run of snippets is read as a slice: a copy of just those bytes of the memory map
            place = slice(index[0], index[-1] + 1) if index[-1] - index[0] + 1 == len(index) else index
            read = self.features.read(self.ids[videos[row]])
            for name in streams:
                stream_TD = read[name]
                if name not in feature:
                    feature[name] = torch.zeros(len(here), longest, stream_TD.shape[1])
                # copied, for torch wants no read-only memory; then widened on the way into the batch
                feature[name][slot, : len(index)] = torch.from_numpy(np.array(stream_TD[place]))
        return Batch(feature, mask_BT[rows], mask_BT, torch.from_numpy(self.label_NC[videos]), videos, snippets)


def label_matrix(labels: Mapping[str, Sequence[str]], ids: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Video-level classes as float32 `[N, C]`."""
    index = {name: i for i, name in enumerate(classes)}
    label_NC = np.zeros((len(ids), len(classes)), dtype=np.float32)
    for row, video_id in enumerate(ids):
        label_NC[row, [index[name] for name in labels[video_id]]] = 1
    return label_NC


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

    The training sampling of UM, BaSNet, CoLA, CO2-Net and DELU: bin i holds the snippets from `floor(i T / size)` to
    `floor((i + 1) T / size)`, both ends included. A video of `size` snippets is taken as it is.
    """
    if length == size:
        return np.arange(size)
    edges = np.arange(size + 1) * length // size
    return rng.integers(edges[:-1], np.minimum(edges[1:], length - 1) + 1)


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
