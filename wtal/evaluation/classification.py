"""How well video-level classes are told: mean average precision over classes, hit@1 and GAP.

Ties are pessimistic, as in `wtal.evaluation.tagging`: at equal scores the negatives come first, so that no
result hangs on the order of the videos.

Legend: V videos, C classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet, Detection
from wtal.evaluation.average_precision import ranked_pessimistically


@dataclass(frozen=True)
class ClassificationResult:
    """Fractions, 0 to 1."""

    classes: tuple[str, ...]
    """Classes that some video has: the ones averaged over."""
    ap_C: np.ndarray
    """Average precision of each of `classes`."""
    hit_at_1: float
    """Share of the labelled videos whose best-scored class is one of their labels."""
    gap: float
    """Global average precision: all (video, class) scores in one ranking."""

    @property
    def mAP(self) -> float:
        """Mean of `ap_C`."""
        return float(self.ap_C.mean())

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        ap = {name: float(value) for name, value in zip(self.classes, self.ap_C, strict=True)}
        return {"mAP": self.mAP, "hit_at_1": self.hit_at_1, "gap": self.gap, "AP": ap}


def classification_map(
    score_VC: np.ndarray, label_VC: np.ndarray, classes: Sequence[str], top: int = 20
) -> ClassificationResult:
    """Measure video scores (higher is surer) against multi-hot video labels.

    A score of minus infinity says that the class was not offered for the video: it is in no ranking and
    earns nothing. AP is not interpolated: the mean precision at the ranks of the videos that have the class.
    GAP (Abu-El-Haija et al. 2016) ranks the `top` best-scored classes of every video together and divides by
    all positives. Raises `UserError` for scores that are not numbers and for labels without a positive.
    """
    score_VC, label_VC = np.asarray(score_VC, dtype=np.float64), np.asarray(label_VC, dtype=bool)
    if score_VC.shape != label_VC.shape or score_VC.shape[1] != len(classes):
        raise UserError(
            f"scores {score_VC.shape}, labels {label_VC.shape} and {len(classes)} classes do not fit"
        )
    if np.isnan(score_VC).any():
        raise UserError(f"{int(np.isnan(score_VC).sum())} video scores are not numbers")
    if not label_VC.any():
        raise UserError("no video has a label; there is nothing to measure")
    present = np.flatnonzero(label_VC.any(axis=0))
    offered_VC = score_VC > -math.inf
    ap = [
        ranked_pessimistically(
            score_VC[offered_VC[:, c], c], label_VC[offered_VC[:, c], c], int(label_VC[:, c].sum())
        )
        for c in present
    ]
    labelled = np.flatnonzero(label_VC.any(axis=1))
    ranked = np.lexsort((label_VC, -score_VC), axis=1)[:, :top]
    best_V = ranked[labelled, 0]
    kept_VC = np.zeros(label_VC.shape, dtype=bool)
    np.put_along_axis(kept_VC, ranked, True, axis=1)
    kept_VC &= offered_VC
    return ClassificationResult(
        tuple(classes[c] for c in present),
        np.array(ap),
        float((label_VC & offered_VC)[labelled, best_V].mean()),
        ranked_pessimistically(score_VC[kept_VC], label_VC[kept_VC], int(label_VC.sum())),
    )


def video_map(
    ground_truth: AnnotationSet, predictions: Mapping[str, Sequence[Detection]]
) -> ClassificationResult:
    """`classification_map` of detections: a video's score for a class is its best detection's; without one
    the class is not offered.

    Detections of unknown videos and classes are left out.
    """
    index = {name: c for c, name in enumerate(ground_truth.classes)}
    score_VC = np.full((len(ground_truth.videos), len(index)), -math.inf)
    label_VC = np.zeros(score_VC.shape, dtype=bool)
    for v, video in enumerate(ground_truth.videos.values()):
        for label in video.labels:
            label_VC[v, index[label]] = True
        for detection in predictions.get(video.video_id, ()):
            c = index.get(detection.label)
            if c is not None:
                # max() would let a NaN through or not depending on the order
                score_VC[v, c] = np.maximum(score_VC[v, c], detection.score)
    return classification_map(score_VC, label_VC, ground_truth.classes)
