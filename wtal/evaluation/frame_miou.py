"""How well frames are told apart: intersection over union of the foreground frames and of the background
frames.

For a video and one of its labelled classes let G be the snippets inside an instance, P those called
foreground and N those called background. Foreground IoU = |P and G| / |P or G|; background IoU = |N and not
G| / |N or not G|. A binary prediction has N = not P; in ternary pseudo-labels the uncertain snippets are in
neither, so they count as missed on both sides. The mIoU is the mean over all (video, labelled class) pairs,
each pair with the same weight. A pair whose union is empty (nothing there and nothing said) is left out of
that mean.

Legend: T snippets, C classes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.grid import TimeGrid
from wtal.datasets.annotations import AnnotationSet, Detection, Instance


@dataclass(frozen=True)
class FrameMIoU:
    """Fractions, 0 to 1; NaN where no pair has anything to measure."""

    foreground: float
    background: float
    pairs: int
    """(video, labelled class) pairs looked at."""
    confident: float
    """Share of the pairs' snippets that were called foreground or background (1 for binary predictions)."""

    def as_dict(self) -> dict:
        """Plain values for JSON (null for NaN)."""
        values = {"fg_miou": self.foreground, "bg_miou": self.background, "confident": self.confident}
        return {key: None if math.isnan(value) else value for key, value in values.items()} | {
            "pairs": self.pairs
        }


def frame_miou(
    truth: Mapping[str, np.ndarray],
    prediction: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray] | None = None,
) -> FrameMIoU:
    """Foreground and background mIoU of `prediction` against `truth`, both by video id.

    `truth`: bool `[T, C]`. `prediction`: bool `[T, C]`, or ternary pseudo-labels (1 foreground, 0 background,
    -1 uncertain; METHOD eq. 4) of an integer type. `labels`: bool `[C]`, the video's labelled classes;
    without it the classes with a snippet of ground truth. Raises `UserError` naming a video that is missing
    or of another shape.
    """
    foreground, background, confident, snippets, pairs = [], [], 0, 0, 0
    for video_id, truth_TC in truth.items():
        if video_id not in prediction:
            raise UserError(f"video {video_id!r} has ground truth but no frame prediction")
        predicted_TC = prediction[video_id]
        if predicted_TC.shape != truth_TC.shape:
            raise UserError(
                f"video {video_id!r}: frame prediction {predicted_TC.shape} and "
                f"ground truth {truth_TC.shape} differ in shape"
            )
        chosen_C = truth_TC.any(axis=0) if labels is None else np.asarray(labels[video_id], dtype=bool)
        there, called = truth_TC[:, chosen_C].astype(bool), predicted_TC[:, chosen_C]
        positive, negative = called == 1, called == 0
        foreground.append(_iou(positive, there))
        background.append(_iou(negative, ~there))
        confident += int(positive.sum() + negative.sum())
        snippets += called.size
        pairs += called.shape[1]
    return FrameMIoU(
        _mean(foreground), _mean(background), pairs, confident / snippets if snippets else math.nan
    )


def _iou(one_TC: np.ndarray, other_TC: np.ndarray) -> np.ndarray:
    union_C = (one_TC | other_TC).sum(axis=0)
    intersection_C = (one_TC & other_TC).sum(axis=0)
    return (intersection_C[union_C > 0] / union_C[union_C > 0]).astype(np.float64)


def _mean(values: Sequence[np.ndarray]) -> float:
    together = np.concatenate(values) if values else np.zeros(0)
    return float(together.mean()) if together.size else math.nan


def rasterise(
    instances: Iterable[Instance | Detection], grid: TimeGrid, length: int, classes: Sequence[str]
) -> np.ndarray:
    """Instances (seconds) as a mask, bool `[length, C]`: a snippet is foreground if its centre is inside one.

    Inside means `start <= centre < end`; snippet t's centre is `(t + 1/2) * stride / fps`. Instances of a
    class that is not in `classes` are left out.
    """
    mask_TC = np.zeros((length, len(classes)), dtype=bool)
    index = {name: position for position, name in enumerate(classes)}
    chosen = [instance for instance in instances if instance.label in index]
    centre_T = grid.to_seconds(np.arange(length) + 0.5)
    first = np.searchsorted(centre_T, [instance.start for instance in chosen], side="left")
    after = np.searchsorted(centre_T, [instance.end for instance in chosen], side="left")
    for instance, start, stop in zip(chosen, first, after, strict=True):
        mask_TC[start:stop, index[instance.label]] = True
    return mask_TC


def detection_frame_miou(
    ground_truth: AnnotationSet,
    predictions: Mapping[str, Sequence[Detection]],
    grid: TimeGrid | None = None,
    lowest_score: float = -math.inf,
) -> FrameMIoU:
    """`frame_miou` of detections: the union of a video's detections of score >= `lowest_score`, class by
    class.

    The grid (default: 25 fps, 16-frame snippets) covers the video's duration, or where that is unknown
    everything annotated and detected in it. A video without detections is background throughout.
    """
    grid = grid or TimeGrid()
    truth, prediction, labels = {}, {}, {}
    for video in ground_truth.videos.values():
        if not video.instances:
            continue
        found = [d for d in predictions.get(video.video_id, ()) if d.score >= lowest_score]
        seconds = video.duration
        if seconds is None:
            seconds = max(segment.end for segment in (*video.instances, *found))
        length = max(1, math.ceil(grid.to_snippets(seconds) - 1e-9))
        classes = tuple(dict.fromkeys(instance.label for instance in video.instances))
        truth[video.video_id] = rasterise(video.instances, grid, length, classes)
        prediction[video.video_id] = rasterise(found, grid, length, classes)
        labels[video.video_id] = np.ones(len(classes), dtype=bool)
    return frame_miou(truth, prediction, labels)
