"""Detections against ground truth: AP by class and threshold under a named protocol, and mIoU of frames."""

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal evaluate`."""
    parser.add_argument("predictions", type=Path, help="detections, ActivityNet JSON (seconds)")
    parser.add_argument(
        "ground_truth", type=Path, help="annotations, ActivityNet JSON or another layout that wtal reads"
    )
    add_protocol_arguments(parser)
    parser.add_argument("--per-class", action="store_true", help="also print the AP of each class")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def add_protocol_arguments(parser: argparse.ArgumentParser) -> None:
    """What `evaluate`, `diagnose` and `compare` share."""
    parser.add_argument(
        "--protocol",
        default="activitynet",
        help="activitynet (seconds; default), thumos-snippet (CO2-Net family) or thumos-official (the challenge's)",
    )
    parser.add_argument(
        "--tiou",
        nargs="+",
        metavar="T",
        help="thresholds in (0, 1], or START:STEP:END such as 0.1:0.1:0.7 (default: the protocol's usual ones)",
    )
    parser.add_argument(
        "--subset",
        nargs="+",
        metavar="NAME",
        help="only these subsets of the ground truth (default: all its videos)",
    )


def parse_tiou(words: list[str] | None) -> list[float] | None:
    """`["0.1", "0.3"]` or `["0.5:0.05:0.95"]` to thresholds; `UserError` for anything else."""
    from feature_extraction.errors import UserError

    if words is None:
        return None
    thresholds: list[float] = []
    for word in words:
        try:
            parts = [float(part) for part in word.split(":")]
        except ValueError:
            parts = []
        if len(parts) == 1:
            thresholds.append(parts[0])
        elif len(parts) == 3 and parts[1] > 0 and parts[0] <= parts[2] < parts[0] + 1000 * parts[1]:
            start, step, end = parts
            thresholds += [round(start + i * step, 10) for i in range(int((end - start) / step + 1e-6) + 1)]
        else:
            raise UserError(
                f"--tiou {word!r}: expected a number such as 0.5, or START:STEP:END such as 0.1:0.1:0.7"
            )
    return thresholds


def read_inputs(options: argparse.Namespace, predictions: Path):
    """The chosen ground truth and the predictions without the videos that `--subset` leaves out."""
    from wtal.datasets.annotations import read_activitynet, read_predictions

    everything = read_activitynet(options.ground_truth)
    chosen = everything.subset(*options.subset) if options.subset else everything
    found = read_predictions(predictions)
    elsewhere = [
        video_id for video_id in found if video_id in everything.videos and video_id not in chosen.videos
    ]
    if elsewhere:
        print(
            f"note: {predictions}: {len(elsewhere)} videos are in another subset and are left out",
            file=sys.stderr,
        )
    return chosen, {video_id: value for video_id, value in found.items() if video_id not in set(elsewhere)}


def run(options: argparse.Namespace) -> int:
    """Print mAP; exit code 0."""
    from wtal.evaluation.detection import detection_map
    from wtal.evaluation.frame_miou import detection_frame_miou
    from wtal.evaluation.tables import evaluation_table

    tiou = parse_tiou(options.tiou)
    ground_truth, predictions = read_inputs(options, options.predictions)
    result = detection_map(ground_truth, predictions, options.protocol, tiou)
    frames = detection_frame_miou(ground_truth, predictions)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if options.json:
        print(json.dumps(result.as_dict() | frames.as_dict(), allow_nan=False))
    else:
        print(evaluation_table(result, frames, options.per_class))
    return 0
