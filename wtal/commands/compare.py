"""Two sets of detections on the same ground truth: mAP, and the difference with its interval."""

import argparse
import json
import sys
from pathlib import Path

from wtal.commands import evaluation_inputs as inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal compare`."""
    parser.add_argument("first", type=Path, help="detections, ActivityNet JSON (seconds)")
    parser.add_argument("second", type=Path, help="the detections to compare them with")
    inputs.add_ground_truth(parser)
    inputs.add_protocol(parser)
    inputs.add_tiou(parser, "the protocol's usual ones")
    parser.add_argument("--resamples", type=int, default=1000, help="draws of videos with replacement (default 1000)")
    inputs.add_draws(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(options: argparse.Namespace) -> int:
    """Print the comparison; exit code 0."""
    from wtal.evaluation.bootstrap import BootstrapSettings, compare
    from wtal.evaluation.tables import comparison_table

    settings = BootstrapSettings(options.resamples, options.confidence, options.seed)
    ground_truth, left_out = inputs.read_ground_truth(options)
    first, second = (inputs.read_detections(path, ground_truth, left_out) for path in (options.first, options.second))
    comparison = compare(ground_truth, first, second, options.protocol, inputs.parse_tiou(options.tiou), settings)
    values = comparison.as_dict()
    for note in values["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(values, allow_nan=False) if options.json else comparison_table(comparison))
    return 0
