"""Extract, train, predict and report from one configuration. What is done is not done again: a stopped run goes on."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from feature_extraction.errors import PartialFailure
from wtal.config.load import Config, load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal run`."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, such as `wtal init` writes")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, for example seed=1")
    parser.add_argument("--bundle", action="store_true", help="copy the videos into the report")


def run(options: argparse.Namespace) -> int:
    return run_all(load_config(options.config, options.overrides), options.bundle)


def run_all(config: Config, bundle: bool) -> int:
    """Extract (where `data.videos` is set), train, predict, report; prints where results lie.

    Raises `PartialFailure` at the end where videos could not be read: everything is done for the others.
    """
    # heavy imports only once the configuration has proved right
    from feature_extraction.files import read_json
    from feature_extraction.pipeline.run import extract
    from wtal.config.shipped import resolve
    from wtal.report.build import report_run
    from wtal.runs.measure import summary_table
    from wtal.runs.predict import predict_run
    from wtal.training.run import train

    failed: dict[str, str] = {}
    left_out: list[str] = []
    if config.data.videos:
        with stage("extract"):
            failed = extract(config.data.videos, config.data.features, config.extraction, resolve=resolve).failed
    with stage("train"):
        run, missing = train(config)
    with stage("predict"):
        try:
            predict_run(run, run.predictions, "ours", (), None)
        except PartialFailure as error:
            left_out.append(str(error))
    with stage("report"):
        index = report_run(run, bundle=bundle)
    if run.summary.is_file():
        print(summary_table(read_json(run.summary)))
    print(f"detections: {run.predictions}")
    print(f"report: {index.resolve()}")
    if failed:
        left_out.insert(0, f"{len(failed)} videos could not be read: {_named(failed)}")
    elif missing:
        left_out.insert(0, f"{len(missing)} training videos have no features: {', '.join(missing[:5])}")
    if left_out:
        raise PartialFailure("; ".join(left_out))
    return 0


def _named(failed: dict[str, str]) -> str:
    return "; ".join(f"{video_id} ({reason})" for video_id, reason in sorted(failed.items())[:5])


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Says on stderr how long a stage took."""
    began = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
