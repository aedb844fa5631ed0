"""A trained run as one file, to hand on or take to another machine: weights, settings, classes, the networks that made
its features, metrics, licence. `wtal predict FILE --video ...` and `wtal.load(FILE)` take it."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal pack`."""
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of `wtal train`")
    parser.add_argument("overrides", nargs="*", metavar="inference.key=value", help="inference settings to change")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.wtal", help="file to write")
    parser.add_argument(
        "--licence", default="", metavar="TEXT", help="licence of the model, for its card; for example CC-BY-4.0"
    )


def run(options: argparse.Namespace) -> int:
    from wtal.runs.pack import pack
    from wtal.training.folder import RunFolder

    card = pack(RunFolder(options.run), options.out, options.overrides, options.licence)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")
    print(f"model card: {card}")
    return 0
