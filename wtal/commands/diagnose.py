"""What kind of mistakes detections make: false positives by type and cost, and which instances are missed."""

import argparse
import json
import sys
from pathlib import Path

from wtal.commands import evaluation_inputs as inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal diagnose`."""
    parser.add_argument("predictions", type=Path, help="detections, ActivityNet JSON (seconds)")
    inputs.add_ground_truth(parser)
    inputs.add_tiou(parser, "0.5")
    parser.add_argument(
        "--bins",
        default="quantile",
        help="bins of length, coverage and count: quantile (default), thumos14 or activitynet (DETAD's)",
    )
    parser.add_argument(
        "--limit", type=int, default=10, help="detections looked at: so many times a class's instances (default 10)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write figures there, SVG and PNG")


def run(options: argparse.Namespace) -> int:
    """Print the diagnosis (activitynet protocol); exit code 0."""
    from wtal.evaluation.diagnosis.diagnose import DiagnosisSettings, diagnose
    from wtal.evaluation.tables import diagnosis_table

    settings = DiagnosisSettings(options.bins, options.limit)
    tiou = inputs.parse_tiou(options.tiou) or [0.5]
    ground_truth, left_out = inputs.read_ground_truth(options)
    predictions = inputs.read_detections(options.predictions, ground_truth, left_out)
    diagnosis = diagnose(ground_truth, predictions, tiou, settings)
    for note in diagnosis.notes:
        print(f"note: {note}", file=sys.stderr)
    if options.figures is not None:
        from wtal.evaluation.diagnosis.figures import write_figures

        for path in write_figures(diagnosis, options.figures):
            print(f"wrote {path}", file=sys.stderr)
    print(json.dumps(diagnosis.as_dict(), allow_nan=False) if options.json else diagnosis_table(diagnosis))
    return 0
