"""Detections against ground truth: AP by class and threshold under a named protocol, and mIoU of frames."""

import argparse
import json
import sys
from pathlib import Path

from wtal.commands import evaluation_inputs as inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal evaluate`."""
    parser.add_argument("predictions", type=Path, help="detections, ActivityNet JSON (seconds)")
    inputs.add_ground_truth(parser)
    inputs.add_protocol(parser)
    inputs.add_tiou(parser, "the protocol's usual ones")
    parser.add_argument("--per-class", action="store_true", help="also print the AP of each class")
    parser.add_argument("--bootstrap", type=int, metavar="N", help="confidence intervals from N draws of the videos")
    inputs.add_draws(parser)
    parser.add_argument(
        "--proposals", action="store_true", help="also average recall by number of proposals, classes ignored"
    )
    parser.add_argument(
        "--videos", action="store_true", help="also mAP of video labels, a video's score being its best detection's"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (fractions) instead of the table")


def run(options: argparse.Namespace) -> int:
    """Print mAP; exit code 0."""
    from wtal.config.evaluation import check_tiou
    from wtal.evaluation.bootstrap import BootstrapSettings, intervals_of
    from wtal.evaluation.classification import video_map
    from wtal.evaluation.detection.protocols import assign, protocol_named, result_of
    from wtal.evaluation.frame_miou import detection_frame_miou
    from wtal.evaluation.proposals import average_recall
    from wtal.evaluation.tables import evaluation_table

    # what is wrong with the arguments is said before anything is read
    tiou = inputs.parse_tiou(options.tiou)
    check_tiou(tiou or protocol_named(options.protocol).default_tiou)
    draws = BootstrapSettings(
        1000 if options.bootstrap is None else options.bootstrap, options.confidence, options.seed
    )
    ground_truth, left_out = inputs.read_ground_truth(options)
    predictions = inputs.read_detections(options.predictions, ground_truth, left_out)

    assignment = assign(ground_truth, predictions, options.protocol, tiou)
    result = result_of(assignment, options.protocol)
    frames = detection_frame_miou(ground_truth, predictions)
    extras = {
        "bootstrap": None if options.bootstrap is None else intervals_of(assignment, options.protocol, draws),
        "proposals": average_recall(ground_truth, predictions) if options.proposals else None,
        "videos": video_map(ground_truth, predictions) if options.videos else None,
    }
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if options.json:
        values = result.as_dict() | frames.as_dict()
        values |= {name: part.as_dict() for name, part in extras.items() if part is not None}
        print(json.dumps(values, allow_nan=False))
    else:
        print(evaluation_table(result, frames, options.per_class, **extras))
    return 0
