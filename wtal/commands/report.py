"""A run as a folder of HTML pages, to open from disk: results, training curves, and a page for every video."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal report`."""
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of `wtal train`, after `wtal predict`")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write into (default: RUN/report)")
    parser.add_argument(
        "--bundle", action="store_true", help="copy the videos into the report, so that it can be moved or served"
    )


def run(options: argparse.Namespace) -> int:
    from wtal.report.build import report_run
    from wtal.training.folder import RunFolder

    print(report_run(RunFolder(options.run), options.out, bundle=options.bundle))
    return 0
