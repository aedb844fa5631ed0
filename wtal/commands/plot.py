"""A figure of a run, for a paper: SVG, PNG or PDF by the suffix of --out.

timeline: ground truth, frame probabilities and detections of each branch for one video (--video ID).
map: mAP over tIoU of every row. class-ap: AP by class of the run's detections (--tiou, default the average).
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal plot`."""
    parser.add_argument("figure", choices=("timeline", "map", "class-ap"), help="what to draw")
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of `wtal train`, after `wtal predict`")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file ending in .svg, .png or .pdf")
    parser.add_argument("--video", metavar="ID", help="timeline: which video")
    parser.add_argument("--tiou", type=float, help="class-ap: one threshold instead of the mean over the run's")


def run(options: argparse.Namespace) -> int:
    from feature_extraction.errors import UserError
    from feature_extraction.store.ids import IdFinder
    from wtal.report.figures import FORMATS, class_figure, map_figure, save, timeline_figure
    from wtal.report.read_run import class_precision, read_run
    from wtal.training.folder import RunFolder

    if options.out.suffix.lower().lstrip(".") not in FORMATS:
        raise UserError(f"{options.out}: the suffix says the format; use one of .{', .'.join(FORMATS)}")
    folder = RunFolder(options.run)
    if options.figure == "class-ap":
        figure = class_figure(*class_precision(folder, options.tiou))
    else:
        data = read_run(folder)
        if options.figure == "map":
            figure = map_figure(data)
        else:
            videos = {video.video_id: video for video in data.videos}
            meant = IdFinder(videos).candidates(options.video or "")
            if len(meant) != 1:
                problem = f"may be {' or '.join(meant[:3])}" if meant else "is not in the run"
                raise UserError(f"--video {options.video!r} {problem}; there are: {', '.join(list(videos)[:5])}, ...")
            video = videos[meant[0]]
            figure = timeline_figure(video, data.scores(video.video_id), data.classes, data.inference)
    print(save(figure, options.out))
    return 0
