"""Signals to proposals: runs above thresholds, for all classes and thresholds at once, and their scores.

Legend: T snippets (or upsampled positions), C classes, K thresholds, N proposals. Positions are on the axis
that the signal has; a proposal's end is exclusive.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Proposals:
    """Segments of the classes' signals."""

    class_N: np.ndarray
    """int64, column of the signal."""
    start_N: np.ndarray
    """int64, first position."""
    end_N: np.ndarray
    """int64, first position after the end."""

    def __len__(self) -> int:
        return len(self.class_N)

    def __getitem__(self, keep: np.ndarray) -> "Proposals":
        return Proposals(self.class_N[keep], self.start_N[keep], self.end_N[keep])


def upsample(signal_TC: np.ndarray, factor: int, at: str = "centre") -> np.ndarray:
    """Linear interpolation to `factor` positions per snippet, `[T * factor, C]`.

    Values sit at the snippets' centres, and the ends are flat; or `at` their "start", and the end goes on as it went.
    """
    if factor == 1:
        return signal_TC
    length = len(signal_TC)
    place = np.arange(length * factor) / factor
    if at == "centre":
        place = np.clip(place + 0.5 / factor - 0.5, 0, length - 1)
    left = np.clip(place.astype(np.int64), 0, max(0, length - 2))
    weight = (place - left).astype(signal_TC.dtype)[:, None]
    right = np.minimum(left + 1, length - 1)
    return signal_TC[left] * (1 - weight) + signal_TC[right] * weight


def stretch(signal_TC: np.ndarray) -> np.ndarray:
    """Min-max normalise each class over time to 0..1. A class that never changes is left as it is."""
    low_C, high_C = signal_TC.min(axis=0), signal_TC.max(axis=0)
    flat_C = high_C <= low_C
    return np.where(flat_C, signal_TC, (signal_TC - low_C) / np.where(flat_C, 1, high_C - low_C))


def propose(signal_TC: np.ndarray, threshold_K: Sequence[float], first_alone: bool = True) -> Proposals:
    """The runs of positions strictly above each threshold, for every class, by threshold, class, time.

    `first_alone`: whether the first position counts where no other one is above a threshold.
    """
    length, classes = signal_TC.shape
    threshold_K = np.asarray(threshold_K, dtype=signal_TC.dtype)
    above_KCT = np.zeros((len(threshold_K), classes, length + 2), dtype=np.int8)
    above_KCT[:, :, 1:-1] = signal_TC.T > threshold_K[:, None, None]
    if not first_alone:
        above_KCT[:, :, 1] &= above_KCT[:, :, 2:].any(axis=2)
    change_KCT = np.diff(above_KCT, axis=2)
    # Both come in the order threshold, class, time, so the n-th start belongs to the n-th end.
    _, class_N, start_N = np.nonzero(change_KCT == 1)
    return Proposals(class_N, start_N, np.nonzero(change_KCT == -1)[2])


def unique(found: Proposals, length: int) -> Proposals:
    """Sorted by class, start, end, without repetitions; `length` is the axis's, in positions."""
    span = length + 1
    key_N = np.unique((found.class_N * span + found.start_N) * span + found.end_N)
    return Proposals(key_N // (span * span), key_N // span % span, key_N % span)


def join(parts: Sequence[Proposals]) -> Proposals:
    """Several signals' proposals, one after the other."""
    return Proposals(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("class_N", "start_N", "end_N")))


def maximum_inside(signal_TC: np.ndarray, proposals: Proposals) -> np.ndarray:
    """Largest value inside each proposal, `[N]`: the paper's score."""
    length = len(signal_TC)
    # One column after another, with a place after the last so that every end is an index.
    flat = np.append(signal_TC.T.reshape(-1), signal_TC.dtype.type(0))
    offset_N = proposals.class_N * length
    bounds = np.stack([offset_N + proposals.start_N, offset_N + proposals.end_N], axis=1).reshape(-1)
    return np.maximum.reduceat(flat, bounds)[::2].astype(np.float64) if len(proposals) else np.zeros(0)


def mean_inside(signal_TC: np.ndarray, proposals: Proposals) -> np.ndarray:
    """Mean value inside each proposal, `[N]`."""
    total_TC = _running_sum(signal_TC)
    inside_N = total_TC[proposals.end_N, proposals.class_N] - total_TC[proposals.start_N, proposals.class_N]
    return inside_N / (proposals.end_N - proposals.start_N)


def outer_inner_contrast(signal_TC: np.ndarray, proposals: Proposals, ratio: float) -> np.ndarray:
    """Mean inside less mean of the surroundings, `[N]` (AutoLoc's idea, in the form of BaSNet and all after it).

    The surroundings reach from `floor(start - ratio * L)` to `floor(last + ratio * L)`, `L` the proposal's
    length, cut to the signal; where there are none their mean is 0.
    """
    length_N = proposals.end_N - proposals.start_N
    total_TC = _running_sum(signal_TC)
    low_N = np.maximum(0, np.floor(proposals.start_N - ratio * length_N)).astype(np.int64)
    high_N = np.minimum(len(signal_TC), np.floor(proposals.end_N + ratio * length_N)).astype(np.int64)
    column_N = proposals.class_N
    inner_N = total_TC[proposals.end_N, column_N] - total_TC[proposals.start_N, column_N]
    outer_N = total_TC[high_N, column_N] - total_TC[low_N, column_N] - inner_N
    around_N = (high_N - low_N) - length_N
    return inner_N / length_N - np.where(around_N > 0, outer_N / np.maximum(around_N, 1), 0.0)


def _running_sum(signal_TC: np.ndarray) -> np.ndarray:
    total_TC = np.zeros((len(signal_TC) + 1, signal_TC.shape[1]))
    np.cumsum(signal_TC, axis=0, dtype=np.float64, out=total_TC[1:])
    return total_TC
