"""A trained run to detections: scores of every branch for the test videos (or given ones), then ActivityNet JSON."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of `wtal train`")
    parser.add_argument("overrides", nargs="*", metavar="inference.key=value", help="inference settings to change")
    parser.add_argument("--out", required=True, type=Path, help="where to write the predictions (ActivityNet JSON)")
    parser.add_argument("--video", nargs="+", type=Path, default=[], metavar="FILE", help="predict these instead")
    parser.add_argument("--row", default="ours", help="whose detections: ours, ours_last, cbp_warmup, vlp_raw or vlp")
    parser.add_argument(
        "--features",
        type=Path,
        help="feature store to read instead of the configuration's (the run's own scores and summary stay as they "
        "are); with --video, where the features of the new videos are kept (default: RUN/features-new)",
    )


def run(options: argparse.Namespace) -> int:
    from wtal.runs.predict import predict_run, predict_videos
    from wtal.training.folder import RunFolder

    folder = RunFolder(options.run)
    if options.video:
        return predict_videos(folder, options.video, options.out, options.row, options.overrides, options.features)
    return predict_run(folder, options.out, options.row, options.overrides, options.features)
