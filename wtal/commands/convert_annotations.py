"""Annotations of any layout that wtal reads into ActivityNet JSON, CSV or JSON lines."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal convert annotations`."""
    parser.add_argument("source", type=Path, help="annotation file or folder")
    parser.add_argument("out", type=Path, help="file to write: .json (ActivityNet), .csv or .jsonl")
    parser.add_argument("--format", help="layout of the source (default: told from name and content)")
    parser.add_argument("--extra", type=Path, help="second path of the layout (data.annotations_extra)")
    parser.add_argument("--subset", nargs="+", metavar="NAME", help="only these subsets")
    parser.add_argument("--exclude", default="none", help="named list of videos to leave out, such as thumos14-210")


def run(options: argparse.Namespace) -> int:
    """Convert; says on stdout what was written and on stderr what the target cannot hold."""
    from feature_extraction.errors import UserError
    from wtal.datasets.annotations import write_activitynet
    from wtal.datasets.formats.by_name import guess_format, read_annotations
    from wtal.datasets.formats.weak_labels import write_csv, write_jsonl
    from wtal.datasets.splits import without

    writers = {".json": write_activitynet, ".csv": write_csv, ".jsonl": write_jsonl}
    suffix = options.out.suffix.lower()
    if suffix not in writers:
        raise UserError(f"{options.out}: cannot write {suffix or 'a file without suffix'}; use {', '.join(writers)}")
    if options.out.is_dir():
        raise UserError(f"{options.out}: is a folder; name a file")
    layout = options.format or guess_format(options.source)
    annotations = without(read_annotations(options.source, layout, options.extra), options.exclude)
    if options.subset:
        annotations = annotations.subset(*options.subset)
    writers[suffix](options.out, annotations)
    videos = annotations.videos.values()
    segments, unsure = sum(len(v.instances) for v in videos), sum(len(v.ambiguous) for v in videos)
    lost = {".json": [], ".csv": [(segments, "segments"), (unsure, "Ambiguous segments")],
            ".jsonl": [(unsure, "Ambiguous segments")]}[suffix]  # fmt: skip
    for count, what in lost:
        if count:
            print(f"wtal convert: {count} {what} are left out: {suffix} has no place for them", file=sys.stderr)
    print(
        f"{options.out}: {len(videos)} videos, {len(annotations.classes)} classes, {segments} segments, from {layout}"
    )
    return 0
