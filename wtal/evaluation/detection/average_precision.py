"""Average precision of one class from its detections in falling order of score.

Legend: N detections, H hits (true positives).
"""

import numpy as np


def interpolated(hit_N: np.ndarray, positives: int) -> float:
    """Area under the monotone envelope of precision over recall, all points (VOC 2010 and later,
    ActivityNet).

    Precision at a recall is the best precision at that or any higher recall; each hit adds `1 / positives`
    recall.
    """
    precision_H = precision_at_hits(hit_N)
    envelope_H = np.maximum.accumulate(precision_H[::-1])
    return float(envelope_H.sum() / positives)


def non_interpolated(hit_N: np.ndarray, positives: int) -> float:
    """Sum of the precision at each hit over the number of positives (the THUMOS challenge's AP)."""
    return float(precision_at_hits(hit_N).sum() / positives)


def precision_at_hits(hit_N: np.ndarray) -> np.ndarray:
    """Precision after each hit, float64 `[H]`."""
    rank_H = np.flatnonzero(hit_N)
    return np.arange(1, len(rank_H) + 1) / (rank_H + 1)


def ranked_pessimistically(score_N: np.ndarray, hit_N: np.ndarray, positives: int) -> float:
    """`non_interpolated` of items by falling score; of equal scores the misses come first."""
    return non_interpolated(hit_N[np.lexsort((hit_N, -score_N))], positives)


def resampled_interpolated(hit_N: np.ndarray, weight_RN: np.ndarray, positives_R: np.ndarray) -> np.ndarray:
    """`interpolated` of R resamples, float64 `[R]`; `weight_RN`: how often each detection's video was drawn.

    A detection that was drawn w times stands w times in the ranking, its copies next to each other. Precision
    rises along the copies of a hit, so the envelope over them is the value after the last one, which is what
    this uses. NaN for a resample without positives.
    """
    gained_RH, precision_RH = _weighted_precision(hit_N, weight_RN)
    envelope_RH = np.maximum.accumulate(precision_RH[:, ::-1], axis=1)[:, ::-1]
    return _per_positive((gained_RH * envelope_RH).sum(axis=1), positives_R)


def resampled_non_interpolated(hit_N: np.ndarray, weight_RN: np.ndarray, positives_R: np.ndarray) -> np.ndarray:
    """`non_interpolated` of R resamples, float64 `[R]`, as `resampled_interpolated`, each copy with its own
    precision.
    """
    rank_RH, hits_RH, gained_RH = _weighted_ranks(hit_N, weight_RN)
    before_hits, before_rank = hits_RH - gained_RH, rank_RH - gained_RH
    total_RH = np.zeros(gained_RH.shape)
    for copy in range(1, int(gained_RH.max(initial=0)) + 1):
        total_RH += np.where(gained_RH >= copy, (before_hits + copy) / (before_rank + copy), 0.0)
    return _per_positive(total_RH.sum(axis=1), positives_R)


def _weighted_ranks(hit_N: np.ndarray, weight_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    where_H = np.flatnonzero(hit_N)
    gained_RH = weight_RN[:, where_H]
    return np.cumsum(weight_RN, axis=1)[:, where_H], np.cumsum(gained_RH, axis=1), gained_RH


def _weighted_precision(hit_N: np.ndarray, weight_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rank_RH, hits_RH, gained_RH = _weighted_ranks(hit_N, weight_RN)
    return gained_RH, np.divide(hits_RH, rank_RH, out=np.zeros(rank_RH.shape), where=rank_RH > 0)


def _per_positive(total_R: np.ndarray, positives_R: np.ndarray) -> np.ndarray:
    return np.divide(total_R, positives_R, out=np.full(len(total_R), np.nan), where=positives_R > 0)
