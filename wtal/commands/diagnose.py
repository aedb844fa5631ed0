"""What kind of mistakes detections make: false positives by type and cost, and which instances are missed."""

import argparse
import sys
from pathlib import Path

from wtal.commands import evaluation_inputs as inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal diagnose`."""
    parser.add_argument(
        "predictions", type=Path, help="detections (seconds), in any layout that --format names, or a run folder"
    )
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
    inputs.add_output(parser)
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write figures there, SVG and PNG")


def run(options: argparse.Namespace) -> int:
    """Print the diagnosis (activitynet protocol); exit code 0."""
    from wtal.evaluation.diagnosis.diagnose import DiagnosisSettings, diagnose
    from wtal.evaluation.tables import diagnosis_table

    settings = DiagnosisSettings(options.bins, options.limit)
    tiou = inputs.check_options(options, [0.5])
    truth = inputs.read_ground_truth(options)
    file = inputs.detections_in(options.predictions)
    predictions = inputs.read_detections(file, truth, options)
    diagnosis = diagnose(truth.annotations, predictions, tiou, settings)
    for note in diagnosis.notes:
        inputs.note(note)
    if options.figures is not None:
        from wtal.evaluation.diagnosis.figures import write_figures

        for path in write_figures(diagnosis, options.figures):
            print(f"wrote {path}", file=sys.stderr)
    inputs.show(options, diagnosis.as_dict(), diagnosis_table(diagnosis, options.table))
    inputs.trace(options, diagnosis.as_dict(), predictions=file)
    return 0
