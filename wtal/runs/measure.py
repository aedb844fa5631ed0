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
from wtal.runs.localizer import Localizer
from wtal.runs.rows import ROWS


def measure(
    localizer: Localizer, row: str, truth: AnnotationSet, detections: Mapping[str, Sequence[Detection]] | None = None
) -> dict[str, Any]:
    """One row's stored scores, measured: `{"mAP": {tiou: value}, "average_mAP", "fg_miou", "bg_miou"}`, fractions.

    `truth` holds the evaluation videos with their segments. `detections` are the row's, where they are made already.
    Frame scores above the pseudo-labels' upper threshold are foreground, for every row, so that rows differ by their
    scores alone; the mIoU is over the classes that each video has.
    """
    config = localizer.config
    found, masks, called = {}, {}, {}
    for video_id, scores in localizer.stored(row, list(truth.videos)):
        found[video_id] = (
            localizer.detections([(video_id, scores)])[video_id] if detections is None else detections[video_id]
        )
        instances, length = truth.videos[video_id].instances, len(scores.frame_TC)
        masks[video_id] = rasterise(instances, scores.grid, length, truth.classes)
        called[video_id] = scores.frame_TC > config.pseudo_labels.high
    result, frames = (
        detection_map(truth, found, config.evaluation.protocol, config.evaluation.tiou),
        frame_miou(masks, called),
    )
    return {
        "mAP": {f"{tiou:g}": float(value) for tiou, value in zip(result.tiou, result.mAP, strict=True)},
        "average_mAP": float(result.average_mAP),
        "fg_miou": float(frames.foreground),
        "bg_miou": float(frames.background),
    }


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
        body.append([ROWS[row].name, *(percent(number) for number in numbers)])
    return text_table(header, body)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
