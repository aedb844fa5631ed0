"""The whole path on a small rendered world: render, extract, train, predict, evaluate, report.

It takes under two minutes on two CPU cores; with --quick, under one.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, for example seed=1")
    parser.add_argument("--quick", action="store_true", help="fewer, shorter videos and less training; the same path")
    parser.add_argument("--out", type=Path, help="run folder (default: ./runs/demo, or ./runs/demo-quick)")


def run(options: argparse.Namespace) -> int:
    from wtal.demo import demo

    return demo(options.quick, options.out, options.overrides)
