"""A run in one table: detection mAP and frame mIoU of every row of the method, on the evaluation videos.

Legend: T snippets, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wtal.config.load import Config
from wtal.datasets.annotations import AnnotationSet, Detection
from wtal.evaluation.detection.protocols import detection_map
from wtal.evaluation.frame_miou import frame_miou, rasterise
from wtal.evaluation.tables import percent, text_table
from wtal.inference.detect import detect, fuse
from wtal.inference.scores import VideoScores
from wtal.training.folder import ROWS


def measure(
    config: Config,
    truth: AnnotationSet,
    scores: Mapping[str, VideoScores],
    other: Mapping[str, VideoScores] | None = None,
) -> dict[str, Any]:
    """Detections of one row's scores, measured: `{"mAP": {tiou: value}, "average_mAP", "fg_miou", "bg_miou"}`.

    All values are fractions. `truth` holds the evaluation videos with their segments; `other` is the second branch
    for settings that fuse.
    """
    detections: dict[str, Sequence[Detection]] = {
        video_id: detect(scores[video_id], truth.classes, config.inference, None if other is None else other[video_id])
        for video_id in truth.videos
    }
    result = detection_map(truth, detections, config.evaluation.protocol, config.evaluation.tiou)
    seen = {v: fuse(scores[v], None if other is None else other[v], config.inference) for v in truth.videos}
    frames = score_miou(truth, seen, config.pseudo_labels.high)
    return {
        "mAP": {f"{tiou:g}": float(value) for tiou, value in zip(result.tiou, result.mAP, strict=True)},
        "average_mAP": float(result.average_mAP),
        **frames,
    }


def score_miou(truth: AnnotationSet, scores: Mapping[str, VideoScores], threshold: float) -> dict[str, float]:
    """Foreground and background mIoU of frame scores above `threshold`, over the classes that each video has.

    The threshold is the pseudo-labels' upper one for every row, so that rows differ by their scores alone.
    """
    masks, predictions = {}, {}
    for video_id, video in truth.videos.items():
        score_TC = scores[video_id].frame_TC
        masks[video_id] = rasterise(video.instances, scores[video_id].grid, len(score_TC), truth.classes)
        predictions[video_id] = score_TC > threshold
    result = frame_miou(masks, predictions)
    return {"fg_miou": float(result.foreground), "bg_miou": float(result.background)}


def summary_of(config: Config, truth: AnnotationSet, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of summary.json: the measured rows with the protocol they were measured by."""
    return {
        "protocol": config.evaluation.protocol,
        "tiou": list(config.evaluation.tiou),
        "videos": len(truth.videos),
        "seed": config.seed,
        "rows": dict(rows),
    }


def summary_table(summary: Mapping[str, Any]) -> str:
    """The rows as a table in percent: mAP at each tIoU, their average, foreground and background mIoU."""
    thresholds = [f"{tiou:g}" for tiou in summary["tiou"]]
    header = ["", *(f"mAP@{tiou}" for tiou in thresholds), "average", "fg mIoU", "bg mIoU"]
    body = []
    for row, values in summary["rows"].items():
        numbers = [*(values["mAP"][tiou] for tiou in thresholds)]
        numbers += [values["average_mAP"], values["fg_miou"], values["bg_miou"]]
        body.append([ROWS.get(row, row), *(percent(number) for number in numbers)])
    return text_table(header, body)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
