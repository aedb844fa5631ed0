"""Two sets of detections on the same ground truth: mAP, and the difference with its interval."""

import argparse
from pathlib import Path

from wtal.commands import evaluation_inputs as inputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal compare`."""
    parser.add_argument(
        "first", type=Path, help="detections (seconds), in any layout that --format names, or a run folder"
    )
    parser.add_argument("second", type=Path, help="the detections to compare them with")
    inputs.add_ground_truth(parser)
    inputs.add_protocol(parser)
    inputs.add_tiou(parser, "the protocol's usual ones")
    parser.add_argument("--resamples", type=int, default=1000, help="draws of videos with replacement (default 1000)")
    inputs.add_draws(parser)
    inputs.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Print the comparison; exit code 0."""
    from wtal.evaluation.bootstrap import BootstrapSettings, compare
    from wtal.evaluation.tables import comparison_table

    tiou = inputs.check_options(options)
    settings = BootstrapSettings(options.resamples, options.confidence, options.seed)
    truth = inputs.read_ground_truth(options)
    files = [inputs.detections_in(path) for path in (options.first, options.second)]
    first, second = (inputs.read_detections(path, truth, options) for path in files)
    comparison = compare(truth.annotations, first, second, options.protocol, tiou, settings)
    names = _names(options.first, options.second)
    values = comparison.as_dict() | {"files": [str(options.first), str(options.second)]}
    values["notes"] = comparison.notes(names)
    for note in values["notes"]:
        inputs.note(note)
    inputs.show(options, values, comparison_table(comparison, options.table, names))
    inputs.trace(options, values, first=files[0], second=files[1])
    return 0


def _names(first: Path, second: Path) -> tuple[str, str]:
    """What to call the two: their file names, or the whole paths where these are the same."""
    one, other = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    return f"first: {one}", f"second: {other}"
