"""Average precision of one class from its detections in falling order of score.

Legend: N detections, H hits (true positives).
"""

import numpy as np


def interpolated(hit_N: np.ndarray, positives: int) -> float:
    """Area under the monotone envelope of precision over recall, all points (VOC 2010 and later, ActivityNet).

    Precision at a recall is the best precision at that or any higher recall; each hit adds `1 / positives` recall.
    """
    precision_H = precision_at_hits(hit_N)
    envelope_H = np.maximum.accumulate(precision_H[::-1])
    return float(envelope_H.sum() / positives)


def non_interpolated(hit_N: np.ndarray, positives: int) -> float:
    """Sum of the precision at each hit over the number of positives (THUMOS challenge; information retrieval)."""
    return float(precision_at_hits(hit_N).sum() / positives)


def precision_at_hits(hit_N: np.ndarray) -> np.ndarray:
    """Precision after each hit, float64 `[H]`."""
    rank_H = np.flatnonzero(hit_N)
    return np.arange(1, len(rank_H) + 1) / (rank_H + 1)
