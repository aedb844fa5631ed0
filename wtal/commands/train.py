"""Train both branches from a feature store and video-level labels, into a run folder; a killed run goes on."""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a shipped configuration's name (sandbox)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, for example optimizer.lr=1e-4")
    parser.add_argument("--print-config", action="store_true", help="print the whole configuration and stop")


def run(options: argparse.Namespace) -> int:
    from wtal.config.load import load_config
    from wtal.config.strict import dump

    config = load_config(options.config, options.overrides)
    if options.print_config:
        print(dump(config), end="")
        return 0
    from wtal.training.collapse import collapses
    from wtal.training.processes import first_process
    from wtal.training.run import train

    folder, excluded = train(config)
    if first_process():
        print(folder.path)
        for text in collapses(folder.records()):
            print(f"warning: {text}", file=sys.stderr)
    return 3 if excluded else 0
