"""Arguments that `evaluate`, `diagnose` and `compare` share, and the reading of what they name."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from feature_extraction.errors import UserError

if TYPE_CHECKING:
    from wtal.datasets.annotations import AnnotationSet, Detection


def add_ground_truth(parser: argparse.ArgumentParser) -> None:
    """GROUND_TRUTH, its layout, and which of its videos count."""
    parser.add_argument("ground_truth", type=Path, help="annotations: ActivityNet JSON or another layout")
    parser.add_argument("--format", help="layout of the ground truth (default: told from its name and content)")
    parser.add_argument(
        "--extra",
        type=Path,
        help="second path of a layout that has one: video table of bmn, split folder of thumos-json, Ambiguous file "
        "of thumos-npy, durations of thumos-txt, class list of csv and jsonl (default: beside the first)",
    )
    parser.add_argument(
        "--subset", nargs="+", metavar="NAME", help="only these subsets of the ground truth (default: all videos)"
    )
    parser.add_argument(
        "--exclude", default="none", metavar="LIST", help="named list of videos to leave out, such as thumos14-212"
    )


def add_tiou(parser: argparse.ArgumentParser, usual: str) -> None:
    """`--tiou`; `usual` says what is taken without it."""
    parser.add_argument(
        "--tiou",
        nargs="+",
        metavar="T",
        help=f"thresholds in (0, 1], or START:STEP:END such as 0.1:0.1:0.7 (default: {usual})",
    )


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """`--protocol`."""
    parser.add_argument(
        "--protocol",
        default="activitynet",
        help="activitynet (default), thumos-snippet (as CO2-Net) or thumos-official (the challenge's)",
    )


def add_draws(parser: argparse.ArgumentParser) -> None:
    """`--confidence` and `--seed` of bootstrap intervals."""
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals (default 0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws of videos (default 0)")


def parse_tiou(words: list[str] | None) -> list[float] | None:
    """`["0.1", "0.3"]` or `["0.5:0.05:0.95"]` to thresholds; `UserError` for anything else."""
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
            raise UserError(f"--tiou {word!r}: expected a number such as 0.5, or START:STEP:END such as 0.1:0.1:0.7")
    return thresholds


def read_ground_truth(options: argparse.Namespace) -> "tuple[AnnotationSet, set[str]]":
    """The videos that count, and the ids of those that `--subset` and `--exclude` leave out."""
    from wtal.datasets.formats.by_name import guess_format, read_annotations
    from wtal.datasets.splits import without

    layout = options.format or guess_format(options.ground_truth)
    everything = read_annotations(options.ground_truth, layout, options.extra)
    chosen = without(everything, options.exclude)
    chosen = chosen.subset(*options.subset) if options.subset else chosen
    return chosen, set(everything.videos) - set(chosen.videos)


def read_detections(path: Path, ground_truth: "AnnotationSet", left_out: set[str]) -> "dict[str, list[Detection]]":
    """The detections in `path` less the videos left out; says on stderr what is odd about them."""
    from wtal.datasets.annotations import read_predictions

    found = read_predictions(path)
    elsewhere = left_out & set(found)
    if elsewhere:
        _note(f"{path}: {len(elsewhere)} video(s) outside the chosen ones are left out")
    kept = {video_id: detections for video_id, detections in found.items() if video_id not in elsewhere}
    subsets = {video.subset for video in ground_truth.videos.values()}
    detected = {ground_truth.videos[video_id].subset for video_id in kept if video_id in ground_truth.videos}
    for silent in sorted(subsets - detected) if detected else []:
        count = sum(video.subset == silent for video in ground_truth.videos.values())
        _note(
            f"{path}: nothing is detected in subset {silent!r}, but its {count} video(s) count; "
            f"--subset {' '.join(sorted(detected))} leaves them out"
        )
    return kept


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
