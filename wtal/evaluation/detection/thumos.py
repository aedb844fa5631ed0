"""What the two THUMOS14 protocols do differently: snippet grid, Ambiguous segments, the challenge's matching.

Legend: N detections, G ground truths, K thresholds.
"""

from dataclasses import replace

import numpy as np

from feature_extraction.store.grid import TimeGrid
from wtal.evaluation.detection.arrays import Problem, Segments

SNIPPETS = TimeGrid(fps=25.0, window=16, stride=16)
"""The grid of the feature files that the `thumos-snippet` family shares."""


def on_snippets(problem: Problem) -> Problem:
    """`thumos-snippet`: all times rounded to snippets, `round(seconds * 25 / 16)` (halves to even, as numpy
    rounds).

    Detections that share a snippet with an Ambiguous segment of their video are then dropped.
    """
    truth, found, ambiguous = (_rounded(part) for part in (problem.truth, problem.found, problem.ambiguous))
    return replace(problem, truth=truth, found=found.take(~touches_ambiguous(found, ambiguous)), ambiguous=ambiguous)


def _rounded(segments: Segments) -> Segments:
    return replace(
        segments, start=np.round(SNIPPETS.to_snippets(segments.start)), end=np.round(SNIPPETS.to_snippets(segments.end))
    )


def touches_ambiguous(found: Segments, ambiguous: Segments) -> np.ndarray:
    """Which detections share time (not just a point) with an Ambiguous segment of their video, `[N]`."""
    touched_N = np.zeros(len(found), dtype=bool)
    order_N = np.argsort(found.video, kind="stable")
    video_N = found.video[order_N]
    low_A = np.searchsorted(video_N, ambiguous.video, side="left")
    high_A = np.searchsorted(video_N, ambiguous.video, side="right")
    for start, end, low, high in zip(ambiguous.start, ambiguous.end, low_A, high_A, strict=True):
        rows = order_N[low:high]
        touched_N[rows] |= np.minimum(found.end[rows], end) > np.maximum(found.start[rows], start)
    return touched_N
