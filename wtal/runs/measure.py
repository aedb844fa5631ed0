"""A run in one table: every row of the method measured on the evaluation videos, all by one rule of scores.

Legend: T snippets, C classes, K those that a video has instances of, H thresholds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from wtal.config.load import Config
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation, labels_of, with_known_segments
from wtal.datasets.detections import Detections
from wtal.datasets.features import FeatureSet, available
from wtal.datasets.splits import split
from wtal.evaluation.classification import video_score_map
from wtal.evaluation.detection.protocols import detection_map
from wtal.evaluation.frame_miou import FrameCounts, rasterise
from wtal.evaluation.tables import percent, text_table
from wtal.inference.scores import VideoScores
from wtal.runs.localizer import Localizer
from wtal.runs.rows import ROWS
from wtal.training.distillation import ternary_labels

FIGURES = {
    # measured figure: what tables call it, beside mAP at each tIoU
    "average_mAP": "average",
    "average_mAP_true_classes": "average, true classes",
    "fg_miou": "fg mIoU",
    "bg_miou": "bg mIoU",
    "labels_fg_miou": "labels fg mIoU",
    "labels_bg_miou": "labels bg mIoU",
    "labels_coverage": "labels sure",
    "video_map": "video mAP",
}
NEGATIVES = "negatives_detected"
"""Key of the share of the negatives that have a detection, in a row's figures where there are negatives."""
THRESHOLDS = np.arange(1, 20) / 20


@dataclass(frozen=True)
class Videos:
    """The videos of a run's splits that have features."""

    ids: list[str]
    """To predict on."""
    missing: dict[str, list[str]]
    """Those without features, by part (test, training)."""
    truth: AnnotationSet
    """Of `ids` those whose segments are annotated, and the negatives."""
    training: AnnotationSet
    """Of the training videos those whose segments are annotated: they choose the threshold of frame mIoU alone."""


def videos_of(config: Config, annotations: AnnotationSet, features: FeatureSet) -> Videos:
    """The videos to measure. Raises `UserError` where test videos have no features (with `data.missing: error`)."""
    parts = split(annotations, config.data)
    ids, missing = available(features, sorted(parts.test.videos), config.data.missing)
    # training itself refuses what it lacks; a finished one needs nothing any more
    known, untrained = available(features, sorted([*parts.train.videos, *parts.held_out.videos]), "skip")

    truth, training = (with_known_segments(annotations, names) for names in (ids, known))
    return Videos(ids, {"test": missing, "training": untrained}, truth, training)


def measure(
    localizer: Localizer,
    row: str,
    features: FeatureSet,
    videos: Videos,
    detections: Detections | None = None,
) -> dict[str, Any]:
    """One row's scores, measured: `{"mAP": {tiou: value}, ...}` and the keys of `FIGURES`, as fractions.

    `detections` are the row's, where they are made already. Frame mIoU and that of the pseudo-labels are over the
    classes that each video has; `frame_threshold` is what the former was measured at.
    """
    config, truth = localizer.config, videos.truth
    threshold = frame_threshold(localizer, row, features, videos.training)
    found = Detections() if detections is None else detections.under({key: key for key in truth.videos})
    with_labels, called, ternary, by_video = Detections(), FrameCounts(), FrameCounts(), {}
    for video_id, scores in localizer.stored(row, list(truth.videos)):
        video = truth.videos[video_id]
        if detections is None:
            found.add(video_id, localizer.detect_one(scores))
        with_labels.add(video_id, localizer.detect_one(scores, video.labels))
        mask_TK, frame_TK, own = _of_own_classes(video, scores, truth.classes)
        called.add(video_id, mask_TK, frame_TK > threshold)
        by_video[video_id] = scores.video_C
        ternary.add(
            video_id, mask_TK, _pseudo_labels(config, frame_TK, np.array([name in video.labels for name in own]))
        )
    tagged = {key: replace(video, labels=tuple(labels_of(video))) for key, video in truth.videos.items()}
    result, known = (
        detection_map(truth, each, config.evaluation.protocol, config.evaluation.tiou) for each in (found, with_labels)
    )
    frames, labels = called.result(), ternary.result()
    negatives = [video_id for video_id, video in truth.videos.items() if video.negative]
    detected = sum(bool(found.view(video_id)) for video_id in negatives) / max(1, len(negatives))
    return {
        "mAP": {f"{tiou:g}": float(value) for tiou, value in zip(result.tiou, result.mAP, strict=True)},
        "average_mAP": result.average_mAP,
        "average_mAP_true_classes": known.average_mAP,
        "fg_miou": frames.foreground,
        "bg_miou": frames.background,
        "frame_threshold": threshold,
        "labels_fg_miou": labels.foreground,
        "labels_bg_miou": labels.background,
        "labels_coverage": labels.confident,
        "video_map": video_score_map(replace(truth, videos=tagged), by_video, localizer.classes).mAP,
        **({NEGATIVES: detected} if negatives else {}),
    }


def frame_threshold(localizer: Localizer, row: str, features: FeatureSet, training: AnnotationSet) -> float:
    """Of `THRESHOLDS` the one of the best foreground and background mIoU (their mean) on the training videos.

    Rows differ in where their scores lie, and so does a rule; neither shall win by a threshold that fits it. Where no
    training video has segments it is `pseudo_labels.high`.
    """
    quality = []
    for video_id, scores in localizer.score(row, features, list(training.videos)):
        mask_TK, frame_TK, _ = _of_own_classes(training.videos[video_id], scores, training.classes)
        mask_TK, frame_TK = mask_TK[:, mask_TK.any(axis=0)], frame_TK[:, mask_TK.any(axis=0)]
        called_HTK = frame_TK > THRESHOLDS[:, None, None]
        quality.append(np.stack([_mean_iou(called_HTK, mask_TK), _mean_iou(~called_HTK, ~mask_TK)], axis=1))
    if not quality:
        return localizer.config.pseudo_labels.high
    # a side that is neither there nor called is right
    return float(THRESHOLDS[np.nan_to_num(quality, nan=1.0).mean(axis=(0, 2)).argmax()])


def _of_own_classes(
    video: VideoAnnotation, scores: VideoScores, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Truth and frame scores `[T, K]` of the classes that the video has instances of, and their names."""
    there = {instance.label for instance in video.instances}
    own_K = [c for c, name in enumerate(classes) if name in there]
    own = [classes[c] for c in own_K]
    return rasterise(video.instances, scores.grid, len(scores.frame_TC), own), scores.frame_TC[:, own_K], own


def _mean_iou(called_HTK: np.ndarray, there_TK: np.ndarray) -> np.ndarray:
    """Mean over the classes of intersection over union in time, `[H]`; without those that are neither there nor called,
    NaN where that leaves none."""
    union_HK, both_HK = ((pair(called_HTK, there_TK)).sum(axis=1) for pair in (np.logical_or, np.logical_and))
    count_H = (union_HK > 0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (both_HK / np.maximum(union_HK, 1)).sum(axis=1) / count_H


def _pseudo_labels(config: Config, frame_TC: np.ndarray, label_C: np.ndarray) -> np.ndarray:
    settings, mask_BT = config.pseudo_labels, torch.ones(1, len(frame_TC), dtype=torch.bool)
    label_BC = torch.from_numpy(label_C)[None]
    return ternary_labels(torch.from_numpy(frame_TC)[None], label_BC, mask_BT, settings.high, settings.low)[0].numpy()


def legend(config: Config) -> str:
    """What the figures mean."""
    high, low = config.pseudo_labels.high, config.pseudo_labels.low
    return (
        "True classes: the video's labels in place of the classes that the row chooses. fg and bg mIoU: frame scores "
        f"over the threshold that is best on the training videos (mean of both; {high:g} if those have no segments). "
        f"labels: the row's ternary pseudo-labels (above {high:g}, below {low:g}) of the same videos, and the share of "
        "them that is sure. video mAP: of the video scores by which the row chooses its classes."
    )


def summary_of(config: Config, truth: AnnotationSet, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of summary.json: the measured rows with the protocol and the rule they were measured by."""
    return {
        "protocol": config.evaluation.protocol,
        "rule": config.inference.said_rule,
        "tiou": list(config.evaluation.tiou),
        "videos": len(truth.videos),
        "seed": config.seed,
        "rows": dict(rows),
    }


def summary_table(summary: Mapping[str, Any]) -> str:
    """The rows as a table in percent: mAP at each tIoU, their average (also with true classes), frame mIoU."""
    thresholds = [f"{tiou:g}" for tiou in summary["tiou"]]
    figures = list(FIGURES)[:4]
    header = [f"rule: {summary['rule']}", *(f"mAP@{tiou}" for tiou in thresholds), *(FIGURES[key] for key in figures)]
    if negatives := any(NEGATIVES in values for values in summary["rows"].values()):
        header.append("negatives with detections")
    body = []
    for row, values in summary["rows"].items():
        numbers = [*(values["mAP"][tiou] for tiou in thresholds), *(values[key] for key in figures)]
        numbers += [values[NEGATIVES]] if negatives else []
        body.append([ROWS[row].name, *(percent(number) for number in numbers)])
    return text_table(header, body)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
