"""Extract, train, predict and report from one configuration. What is done is not done again: a stopped run goes on."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from feature_extraction.errors import PartialFailure
from feature_extraction.store.ids import plain_id
from wtal.config.load import Config, load_config
from wtal.config.shipped import WEAK_TOWERS, weak_towers

SEEN = (
    "the small networks of the sandbox looked at these videos: the detections are a trial, no result (see the report)"
)
WEAK = f"the networks are the small ones of the sandbox. {WEAK_TOWERS}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wtal run`."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, such as `wtal init` writes")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, for example seed=1")
    parser.add_argument("--bundle", action="store_true", help="copy the videos into the report")


def run(options: argparse.Namespace) -> int:
    return run_all(load_config(options.config, options.overrides), options.bundle)


def run_all(config: Config, bundle: bool) -> int:
    """Extract (where `data.videos` is set; the test videos beside training), train, predict, report; prints where
    results lie.

    Raises `PartialFailure` at the end where videos could not be read: everything is done for the others.
    """
    # heavy imports only once the configuration has proved right
    from feature_extraction.files import read_json
    from wtal.report.build import report_run
    from wtal.runs.extraction import extracted
    from wtal.runs.measure import summary_table
    from wtal.runs.predict import predict_run
    from wtal.training.collapse import collapses
    from wtal.training.run import train

    failed: dict[str, str] = {}
    left_out: list[str] = []
    announce(config)
    with ExitStack() as beside:
        if config.data.videos:
            with stage("extract"):
                extract_the_rest = beside.enter_context(extracted(config))
        with stage("train"):
            run, missing = train(config)
        if config.data.videos:
            with stage("extract the rest"):
                failed = extract_the_rest()
    with stage("predict"):
        try:
            predict_run(run, run.predictions, "ours", (), None)
        except PartialFailure as error:
            left_out.append(str(error))
    with stage("report"):
        index = report_run(run, bundle=bundle)
    if run.summary.is_file():
        print(summary_table(read_json(run.summary)))
    for text in [*collapses(run.records()), *([SEEN] if weak_towers(config.extraction, config.data.videos) else [])]:
        print(f"warning: {text}", file=sys.stderr)
    print(f"detections: {run.predictions}")
    print(f"report: {index.resolve()}")
    if failed:
        left_out.insert(0, f"{len(failed)} videos could not be read: {_named(failed)}")
    elif missing:
        left_out.insert(0, f"{len(missing)} training videos have no features: {', '.join(missing[:5])}")
    if left_out:
        raise PartialFailure("; ".join(left_out))
    return 0


def announce(config: Config) -> None:
    """Say on stderr what is going to be done, and about how long it takes."""
    from feature_extraction.pipeline.dry_run import plan as extraction_plan
    from wtal.config.shipped import resolve
    from wtal.training.folder import RunFolder
    from wtal.training.schedule import plan

    if config.data.videos:
        wanted = extraction_plan(config.data.videos, config.data.features, config.extraction, resolve=resolve)
        print(f"to do: extract: {wanted.summary()}", file=sys.stderr)
    phases = [phase for phase in plan(config.schedule) if phase.steps]
    done = max((record["step"] for record in RunFolder(Path(config.out)).records()), default=0)
    steps = f"{phases[-1].end} steps in {len(phases)} phases" + (f", {done} of them done" if done else "")
    print(f"to do: train: {steps}; then predict, and report in {config.out}/report", file=sys.stderr)
    if weak_towers(config.extraction, config.data.videos):
        print(f"note: {WEAK}", file=sys.stderr)


def _named(failed: dict[str, str]) -> str:
    return "; ".join(f"{plain_id(video_id)} ({reason})" for video_id, reason in sorted(failed.items())[:5])


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Says on stderr how long a stage took."""
    began = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
