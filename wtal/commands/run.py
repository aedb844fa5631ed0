"""Extract, train, predict and report from one configuration. What is done is not done again: a stopped run
goes on."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal run`."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, such as `wtal init` writes")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, for example seed=1")
    parser.add_argument("--bundle", action="store_true", help="copy the videos into the report")


def run(options: argparse.Namespace) -> int:
    from wtal.stages import run_all

    return run_all(options.config, options.overrides, options.bundle)
