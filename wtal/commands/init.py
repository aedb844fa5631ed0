"""A folder of videos and a table of labels to a configuration: checks, splits, and says what it chose and why.

The table is CSV with the columns `video` and `label` (a row for each label of a video), or JSONL; an empty label
says that none of the actions happens in the video. A column `subset` (training, validation) sets the split, a column
`group` keeps videos together in it. No times are needed; where some are known, give them with
--segments and the result is measured.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal init`."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of videos, searched with its subfolders")
    parser.add_argument("--labels", type=Path, required=True, metavar="TABLE", help="CSV or JSONL: video, label")
    parser.add_argument(
        "--segments",
        type=Path,
        metavar="FILE",
        help="ground truth of some videos, ActivityNet JSON; videos are named as in TABLE",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="configuration to write (default: ./<FOLDER>.yaml)")
    parser.add_argument(
        "--towers",
        choices=("auto", "public", "shipped"),
        default="auto",
        help="networks for the features: public (Kinetics I3D and CLIP), the small shipped ones, or auto: "
        "public where their weights are on this machine (default)",
    )
    parser.add_argument(
        "--negative",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="labels that stand for no action at all, such as normal: their videos are negatives",
    )
    parser.add_argument(
        "--groups",
        choices=("column", "folder"),
        default="column",
        help="videos that stay together in the split: those with one `group` in TABLE (default), or of one folder",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and of training (default 0)")


def run(options: argparse.Namespace) -> int:
    from feature_extraction.errors import PartialFailure, UserError
    from wtal.runs.own_videos.prepare import prepare

    if not options.folder.is_dir():
        raise UserError(f"{options.folder}: no such folder; give the folder that holds the videos")
    config = options.out or Path(f"{options.folder.resolve().name}.yaml")
    if config.suffix not in (".yaml", ".yml"):
        raise UserError(f"{config}: a configuration's name ends in .yaml")
    made = prepare(
        options.folder,
        options.labels,
        config,
        options.segments,
        options.towers,
        options.seed,
        options.negative,
        options.groups == "folder",
    )
    print(made.config)
    for note in made.notes:
        print(f"  {note}")
    print(f"next: wtal run {made.config}")
    if made.unreadable:
        raise PartialFailure(
            f"{len(made.unreadable)} videos cannot be read and are left out: {'; '.join(made.unreadable)}"
        )
    return 0
