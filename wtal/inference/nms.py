"""Non-maximum suppression in time, hard and soft, of all classes of a video in one call.

Legend: N detections. The tIoU is the exact intersection over union of half-open segments unless something is `added`.
"""

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np

METHODS = {"hard": 0, "gaussian": 1, "linear": 2}


def suppress(
    class_N: np.ndarray,
    start_N: np.ndarray,
    end_N: np.ndarray,
    score_N: np.ndarray,
    method: Literal["hard", "gaussian", "linear"],
    sigma: float = 0.3,
    tiou: float = 0.5,
    floor: float = -np.inf,
    limit: int = 0,
    added: float = 0.0,
    decay_negative: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Suppress within each class; returns (kept indices, their scores) by class, then by falling score.

    Greedy: the best detection left (of equals the first) is kept and lowers the rest of its class: `hard`
    drops those of tIoU >= `tiou`; `gaussian` multiplies by exp(-tIoU^2 / sigma) and `linear` by 1 - tIoU where
    tIoU > `tiou` (Bodla et al., ICCV 2017). Scores that are not positive are left as they are, for multiplying would
    raise them, unless `decay_negative`. `added` lengthens every segment and intersection of the tIoU. A class ends when
    its best score is below `floor` or `limit` detections (0: all) are kept. `class_N` must be sorted. Start, end and
    `added` may be in any unit.
    """
    if not len(class_N):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    if np.any(np.diff(class_N) < 0):
        raise ValueError("class_N must be sorted")
    edges = np.flatnonzero(np.diff(class_N)) + 1
    bounds = np.concatenate([[0], edges, [len(class_N)]]).astype(np.int64)
    return _kernel()(
        bounds,
        np.ascontiguousarray(start_N, dtype=np.float64),
        np.ascontiguousarray(end_N, dtype=np.float64),
        np.array(score_N, dtype=np.float64),
        METHODS[method],
        float(sigma),
        float(tiou),
        float(floor),
        int(limit),
        float(added),
        bool(decay_negative),
    )


@functools.cache
def _kernel() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Compile on first use: numba takes long to import and its cache folder may not be writable."""
    import numba

    try:
        return numba.njit(cache=True)(_suppress)
    except RuntimeError:
        return numba.njit(_suppress)


def _suppress(
    bounds, start, end, score, method, sigma, tiou, floor, limit, added, decay_negative
):  # pragma: no cover - compiled
    kept = np.empty(len(start), dtype=np.int64)
    kept_score = np.empty(len(start), dtype=np.float64)
    left = np.arange(len(start))
    count = 0
    for group in range(len(bounds) - 1):
        first, last = bounds[group], bounds[group + 1]
        begun = count
        best = first
        for i in range(first + 1, last):
            if score[i] > score[best]:
                best = i
        while last > first and (limit == 0 or count - begun < limit):
            winner = left[best]
            if score[winner] < floor:
                break
            kept[count] = winner
            kept_score[count] = score[winner]
            count += 1
            # Close the gap in order, so that of equal scores the first still wins; drop what `hard`
            # suppresses; find the next best on the way.
            place, passed = first, best
            for i in range(first, last):
                if i == passed:
                    continue
                other = left[i]
                inter = min(end[winner], end[other]) - max(start[winner], start[other]) + added
                if inter > 0:
                    overlap = inter / (end[winner] - start[winner] + end[other] - start[other] + 2 * added - inter)
                    if method == 0:
                        if overlap >= tiou:
                            continue
                    elif score[other] > 0 or decay_negative:
                        if method == 1:
                            score[other] *= np.exp(-overlap * overlap / sigma)
                        elif overlap > tiou:
                            score[other] *= 1 - overlap
                left[place] = other
                if place == first or score[other] > score[left[best]]:
                    best = place
                place += 1
            last = place
    return kept[:count], kept_score[:count]
