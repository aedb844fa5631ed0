"""Turn what other projects made into this one's formats: `features` into a store, or `annotations`."""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

KINDS = {
    # what: (the module with add_arguments and run, imported only when asked for; what the help says)
    "features": ("wtal.commands.convert_features", "features (npy files of several projects) into a store"),
    "annotations": ("wtal.commands.convert_annotations", "annotations of other layouts into ActivityNet JSON"),
}


class _LateParser(argparse.ArgumentParser):
    """A parser that gets its arguments, and imports their module, once it is chosen."""

    module = ""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        if self.module:
            importlib.import_module(self.module).add_arguments(self)
            self.module = ""
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`wtal convert features|annotations ...`."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="|".join(KINDS), parser_class=_LateParser)
    for name, (module, text) in KINDS.items():
        kinds.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".").module = module


def run(options: argparse.Namespace) -> int:
    """Exit code of the conversion chosen."""
    return importlib.import_module(KINDS[options.kind][0]).run(options)
