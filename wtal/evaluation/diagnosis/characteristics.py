"""What kind of instance a ground truth is (how long, how much of its video, one of how many), cut into bins.

A bin holds the values above its lower edge up to and including its upper one. Legend: G ground truths, V
videos.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wtal.evaluation.detection.arrays import Problem

NAMES = ("XS", "S", "M", "L", "XL")


@dataclass(frozen=True)
class Binning:
    """One characteristic of the ground truths: a value each, and the bin it falls in."""

    name: str
    unit: str
    value_G: np.ndarray
    """float64; NaN where it is not known (coverage of a video without duration)."""
    edges: tuple[float, ...]
    """Edges of the bins, ascending."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Short names of the bins with their range."""
        names = NAMES if len(self.edges) <= len(NAMES) + 1 else [f"bin {i + 1}" for i in range(len(self.edges) - 1)]
        ranges = zip(self.edges[:-1], self.edges[1:], strict=True)
        return tuple(f"{name} ({low:.3g}, {high:.3g}]" for name, (low, high) in zip(names, ranges, strict=False))

    def bin_G(self) -> np.ndarray:
        """Bin of each ground truth, int64; -1 where the value is unknown or outside the edges."""
        position = np.searchsorted(self.edges, self.value_G, side="left") - 1
        inside = (position >= 0) & (position < len(self.edges) - 1) & ~np.isnan(self.value_G)
        return np.where(inside, position, -1)


# Bins of DETAD (Alwassel et al., ECCV 2018) for its two data sets; `quantile` cuts any data into fifths.
BINS: dict[str, dict[str, tuple[float, ...]] | None] = {
    "thumos14": {
        "length": (0, 3, 6, 12, 18, np.inf),
        "coverage": (0, 0.02, 0.04, 0.06, 0.08, 1),
        "instances": (0, 1, 40, 80, np.inf),
    },
    "activitynet": {
        "length": (0, 30, 60, 120, 180, np.inf),
        "coverage": (0, 0.2, 0.4, 0.6, 0.8, 1),
        "instances": (0, 1, 4, 8, np.inf),
    },
    "quantile": None,
}
UNITS = {"length": "s", "coverage": "share of the video", "instances": "of the class in the video"}


def characteristics(problem: Problem, bins: Mapping[str, tuple[float, ...]] | None) -> tuple[Binning, ...]:
    """Length (seconds), coverage (length over the video's duration) and count (instances of the same class in
    the video).

    `bins`: edges by characteristic, or None for quintiles. A characteristic that no ground truth has is left
    out.
    """
    truth = problem.truth
    length_G = truth.end - truth.start
    duration_G = problem.durations[truth.video]
    coverage_G = np.divide(length_G, duration_G, out=np.full(len(truth), np.nan), where=duration_G > 0)
    coverage_G = np.minimum(coverage_G, 1.0)
    _, group_G, size = np.unique(
        truth.video * len(problem.classes) + truth.label, return_inverse=True, return_counts=True
    )
    values = {"length": length_G, "coverage": coverage_G, "instances": size[group_G].astype(np.float64)}
    return tuple(
        Binning(name, UNITS[name], value_G, bins[name] if bins else _quintiles(value_G))
        for name, value_G in values.items()
        if not np.isnan(value_G).all()
    )


def _quintiles(value_G: np.ndarray) -> tuple[float, ...]:
    known = value_G[~np.isnan(value_G)]
    cuts = np.unique(np.quantile(known, [0.2, 0.4, 0.6, 0.8, 1.0], method="inverted_cdf"))
    return (min(0.0, float(known.min()) - 1.0) if known.min() <= 0 else 0.0, *map(float, cuts))
