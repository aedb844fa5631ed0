"""A trained run to detections: scores of every branch for the test videos (or given ones), then ActivityNet JSON."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of `wtal train`, or a file of `wtal pack`")
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
    from feature_extraction.errors import UserError
    from wtal.runs.localizer import open_run
    from wtal.runs.pack import open_pack
    from wtal.runs.predict import predict_run, predict_store, predict_videos
    from wtal.training.folder import RunFolder

    folder = RunFolder(options.run)
    packed = options.run.is_file()
    if packed or options.video:
        localizer = open_pack(options.run, options.overrides) if packed else open_run(folder, options.overrides)
        if options.video:
            return predict_videos(localizer, options.video, options.out, options.row, options.features)
        if options.features is None:
            raise UserError(f"{options.run}: a packed model has no videos of its own; name some with --video")
        return predict_store(localizer, options.features, options.out, options.row)
    return predict_run(folder, options.out, options.row, options.overrides, options.features)
