"""An evaluation protocol's part: only the 100 best detections of a video count, whatever their classes.

Legend: N detections.
"""

from dataclasses import replace

import numpy as np

from wtal.evaluation.detection.arrays import Problem

MOST = 100


def best_of_each_video(problem: Problem) -> Problem:
    """The problem with at most `MOST` detections a video; of equal scores the one that comes first in the file."""
    found = problem.found
    order_N = np.lexsort((-found.score, found.video))
    video_N = found.video[order_N]
    place_N = np.arange(len(found)) - np.searchsorted(video_N, video_N)
    return replace(problem, found=found.take(np.sort(order_N[place_N < MOST])))
