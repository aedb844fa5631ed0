"""Annotations of another tool into ActivityNet JSON, to evaluate against or to train with.

Formats: csv (columns video, label, start, end), via (VGG Image Annotator 3 project), label-studio (JSON
export), elan (an .eaf file or a folder of them), activitynet (checked and rewritten).
"""

import argparse
import dataclasses
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal import`."""
    parser.add_argument("file", type=Path, help="the file to read (elan: or a folder)")
    parser.add_argument(
        "--from", dest="source", required=True, metavar="FORMAT", help="csv, via, label-studio, elan or activitynet"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ActivityNet JSON to write")
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="PLACE",
        help="where the videos' ids are known from: a folder of videos, a feature store, or a JSON file of annotations "
        "or predictions; names in FILE then become those ids, and what is not found is named",
    )
    parser.add_argument("--subset", metavar="NAME", help="subset to put all videos into, for example validation")


def run(options: argparse.Namespace) -> int:
    from feature_extraction.errors import PartialFailure, UserError
    from wtal.datasets.annotations import AnnotationSet, write_activitynet
    from wtal.datasets.interchange.names import known_ids, with_known_ids
    from wtal.datasets.interchange.tools import IMPORTERS

    if options.source not in IMPORTERS:
        raise UserError(f"unknown format {options.source!r}; there are: {', '.join(IMPORTERS)}")
    annotations = IMPORTERS[options.source](options.file)
    if not any(video.instances or video.labels for video in annotations.videos.values()):
        raise UserError(f"{options.file}: nothing is annotated in it ({len(annotations.videos)} videos)")
    lost: list[str] = []
    if options.videos is not None:
        annotations, lost = with_known_ids(annotations, known_ids(options.videos))
        if not annotations.videos:
            raise UserError(
                f"{options.file}: none of its videos is in {options.videos}: {', '.join(lost[:5])}; is it the right "
                "place?"
            )
    if options.subset is not None:
        annotations = AnnotationSet(
            annotations.classes,
            {key: dataclasses.replace(video, subset=options.subset) for key, video in annotations.videos.items()},
        )
    write_activitynet(options.out, annotations)
    instances = sum(len(video.instances) for video in annotations.videos.values())
    counts = f"{len(annotations.videos)} videos, {len(annotations.classes)} classes, {instances} instances"
    print(f"{options.out}: {counts}")
    if lost:
        raise PartialFailure(
            f"{len(lost)} videos of {options.file} are none, or several, of {options.videos}: {', '.join(lost[:5])}; "
            "name them by their paths there"
        )
    return 0
