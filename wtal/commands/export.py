"""Detections (or annotations) as ActivityNet JSON to the files of another tool.

Formats: csv (a table), vtt (subtitles, one file a video), label-studio (tasks with predictions and the labelling
configuration), fiftyone (temporal detections), via (VGG Image Annotator 3 project), elan (.eaf, one file a video).
"""

import argparse
import math
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal export`."""
    parser.add_argument("predictions", type=Path, help="detections or annotations, ActivityNet JSON (seconds)")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="csv, vtt, label-studio, fiftyone, via or elan")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument(
        "--features",
        type=Path,
        metavar="STORE",
        help="feature store that says where the videos lie and how long they are "
        "(default: the one of the run that PREDICTIONS lies in)",
    )
    parser.add_argument("--min-score", type=float, metavar="S", help="leave out detections below this score")


def run(options: argparse.Namespace) -> int:
    from feature_extraction.errors import UserError
    from wtal.datasets.interchange.labelled import within_time
    from wtal.datasets.interchange.tools import EXPORTERS
    from wtal.report.sources import labelled_videos

    if options.to not in EXPORTERS:
        raise UserError(f"unknown format {options.to!r}; there are: {', '.join(EXPORTERS)}")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out}: not a folder; name another one with --out")
    if options.min_score is not None and math.isnan(options.min_score):
        raise UserError("--min-score is not a number")
    videos = labelled_videos(options.predictions, options.features, options.min_score)
    if not videos:
        raise UserError(f"{options.predictions}: no video in it")
    videos, notes = within_time(videos)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for path in EXPORTERS[options.to](videos, options.out):
        print(path)
    return 0
