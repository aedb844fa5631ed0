"""Scores to detections (thin)."""

from collections.abc import Sequence

import numpy as np

from wtal.datasets.annotations import Detection
from wtal.inference.scores import VideoScores
from wtal.inference.settings import InferenceSettings


def detect(
    scores: VideoScores, classes: Sequence[str], settings: InferenceSettings, other: VideoScores | None = None
) -> list[Detection]:
    """Runs of frames above each threshold, in the classes near the best."""
    found = []
    for c in np.flatnonzero(scores.video_C >= settings.class_threshold * scores.video_C.max()):
        s = scores.frame_TC[:, c]
        s = (s - s.min()) / max(s.max() - s.min(), 1e-6)
        for threshold in settings.thresholds:
            edges = np.flatnonzero(np.diff(np.r_[0, s > threshold, 0]))
            for a, b in zip(edges[::2], edges[1::2], strict=True):
                found.append(
                    Detection(
                        float(scores.grid.to_seconds(a)), float(scores.grid.to_seconds(b)), classes[c], float(s[a:b].max())
                    )
                )
    return found
