"""`wtal convert features`: features of other projects into a feature store, and what was found there."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feature_extraction.importing.convert import ImportReport

SHOWN = 5  # names in each list of the report for people; --json has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`wtal convert features SOURCE --from LAYOUT --out STORE`."""
    from feature_extraction.importing.convert import REDUCTIONS
    from feature_extraction.importing.generic import FINDERS
    from feature_extraction.importing.layouts import LAYOUTS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "layouts:\n" + "\n".join(f"  {name:15} {kind.text}" for name, kind in LAYOUTS.items())
    parser.epilog += f"\n  {', '.join(FINDERS):15} features of any network, found by --stream (docs/own_features.md)"
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder (or the joint .npy file) to read")
    parser.add_argument(
        "--from",
        dest="layout",
        required=True,
        choices=[*LAYOUTS, *FINDERS],
        metavar="LAYOUT",
        help="one of those below",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="feature store to write to")
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="PATH",
        help="ActivityNet-like JSON, or the folder with videoname.npy: durations to check, frame rates",
    )
    parser.add_argument(
        "--source-fps", type=float, metavar="F", help="frames per second of the source (default: by layout)"
    )
    parser.add_argument("--source-window", type=int, metavar="N", help="frames behind one source vector")
    parser.add_argument("--source-stride", type=int, metavar="N", help="frames from one vector to the next")
    parser.add_argument(
        "--stream",
        action="append",
        default=[],
        metavar="NAME=GLOB[:KEY]",
        help="npy, npz and hdf5: a stream and its files below SOURCE, each * a part of the video's id (repeatable)",
    )
    parser.add_argument(
        "--videos", type=Path, metavar="FOLDER", help="the videos themselves: durations to check against"
    )
    parser.add_argument("--width", type=int, metavar="D", help="features of a stream (default: by layout; 0: any)")
    parser.add_argument(
        "--fps",
        type=float,
        metavar="F",
        help="frames per second of the store's time grid (npy, npz, hdf5: and of the features)",
    )
    parser.add_argument("--window", type=int, metavar="N", help="frames behind one vector (npy, npz, hdf5)")
    parser.add_argument("--stride", type=int, metavar="N", help="frames a snippet of the store's time grid")
    parser.add_argument("--reduce", choices=REDUCTIONS, default="mean", help="source vectors to one snippet")
    parser.add_argument("--overwrite", action="store_true", help="write videos again that are in the store")
    parser.add_argument("--dry-run", action="store_true", help="check and report, write nothing")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON on standard output")


def run(options: argparse.Namespace) -> int:
    """Exit code 0; 3 where some videos could not be used, 1 where none could."""
    from feature_extraction.errors import PartialFailure, RunFailure, UserError
    from feature_extraction.importing.convert import ImportSettings, import_features
    from feature_extraction.importing.generic import FINDERS, parse_pattern
    from feature_extraction.store.grid import TimeGrid

    if options.window is not None and options.layout not in FINDERS:
        raise UserError(f"--window is for {', '.join(FINDERS)}; here it is --source-window")
    if options.layout in FINDERS and options.stride is not None and options.window is None:
        raise UserError(f"--from {options.layout} needs --window: the frames that one vector was made from")
    if (options.fps is None) != (options.stride is None):
        raise UserError("--fps and --stride make the store's time grid together: give both or neither")
    settings = ImportSettings(
        layout=options.layout,
        source_fps=options.source_fps,
        source_window=options.source_window,
        source_stride=options.source_stride,
        grid=None if options.fps is None else TimeGrid(options.fps, options.window or options.stride, options.stride),
        patterns=tuple(map(parse_pattern, options.stream)),
        width=options.width,
        reduce=options.reduce,
        overwrite=options.overwrite,
        dry_run=options.dry_run,
    )
    report = import_features(options.source, options.out, settings, options.annotations, options.videos)
    print(json.dumps(report.plain(), indent=1) if options.json else describe(report))
    if report.failed:
        count, (first, reason) = len(report.failed), next(iter(report.failed.items()))
        kind = PartialFailure if count < report.videos else RunFailure
        raise kind(f"{count} of {report.videos} videos failed; the first, {first}: {reason}")
    return 0


def describe(report: "ImportReport") -> str:
    """The report as lines for people."""
    streams = ", ".join(report.streams.values()) or "nothing"
    lines = [
        f"{report.layout}: {report.videos} videos found, {report.written} written, {report.present} there "
        f"before, {len(report.failed)} failed ({streams} in {report.store})"
    ]
    if report.grid is not None and report.lengths:
        lengths = sorted(report.lengths)
        lines.append(
            f"snippets of {report.grid.snippet_seconds:g} s: {lengths[0]} to {lengths[-1]} a video, "
            f"median {lengths[len(lengths) // 2]}; source types {', '.join(report.dtypes)}"
        )
    for text, names in {
        "in the annotations but without features": report.missing,
        "with features but not in the annotations": report.unlisted,
        "whose length does not fit the duration": list(report.off_duration),
        "failed": list(report.failed),
    }.items():
        if names:
            more = f" and {len(names) - SHOWN} more (--json has all)" if len(names) > SHOWN else ""
            lines.append(f"{len(names)} videos {text}: {', '.join(names[:SHOWN])}{more}")
    if report.length_ratio is not None and abs(report.length_ratio - 1) > 0.05 and report.off_duration:
        lines.append(
            f"features are {report.length_ratio:.3g} times as long as the durations say: "
            "look at --source-fps and --source-stride (npy, npz, hdf5: --fps and --stride)"
        )
    if report.swapped:
        against, asked = report.order_votes
        lines.append(
            f"RGB and flow may be exchanged: in {against} of {asked} videos the flow features change less "
            "over time than the RGB features"
        )
    return "\n".join(lines)
