"""The whole path on a small rendered world: render, extract, train, predict, evaluate, report.

It takes under two minutes on two CPU cores; with --quick, under one.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, for example seed=1")
    parser.add_argument("--quick", action="store_true", help="fewer, shorter videos and less training; the same path")
    parser.add_argument("--out", type=Path, help="run folder (default: ./runs/demo, or ./runs/demo-quick)")


def run(options: argparse.Namespace) -> int:
    return demo(options.quick, options.out, options.overrides)


QUICK = (
    # fewer, shorter videos and fewer steps; everything else is the same
    "sandbox.training_videos=16",
    "sandbox.test_videos=8",
    "sandbox.min_seconds=15",
    "sandbox.max_seconds=18",
    "sandbox.max_instances=3",
    "schedule.warmup_steps=60",
    "schedule.rounds=2",
    "schedule.b_steps=30",
    "schedule.f_steps=30",
)


def demo(quick: bool, out: Path | None, overrides: Sequence[str]) -> int:
    """Run every stage that is not done yet; prints the table of the method's rows and where the report lies.

    The run folder (`runs/demo`) holds the world, its features and the run itself.
    """
    # heavy imports only here, so that help is quick
    from feature_extraction.errors import RunFailure
    from feature_extraction.files import read_json
    from feature_extraction.pipeline.run import extract
    from wtal.config.load import load_config
    from wtal.config.shipped import resolve
    from wtal.datasets.sandbox.render import render_world
    from wtal.report.build import report_run
    from wtal.runs.measure import summary_table
    from wtal.runs.predict import predict_run
    from wtal.training.run import train

    folder = out or Path("runs") / ("demo-quick" if quick else "demo")
    world, store = folder / "world", folder / "features"
    places = [f"out={folder}", f"data.annotations={world / 'annotations.json'}", f"data.features={store}"]
    config = load_config("sandbox", [*places, *(QUICK if quick else ()), *overrides])

    with _Stage("render"):
        render_world(world, config.sandbox)
    with _Stage("extract"):
        extraction = extract(world / "videos", store, config.extraction, resolve=resolve)
        if extraction.failed:
            raise RunFailure(f"the sandbox's own videos could not be read: {extraction.failed}")
    with _Stage("train"):
        run, _ = train(config)
    with _Stage("predict and evaluate"):
        predict_run(run, run.predictions, "ours", (), None)
    with _Stage("report"):
        index = report_run(run)
    print(summary_table(read_json(run.summary)))
    print(f"report: {index.resolve()}")
    return 0


class _Stage:
    """Says on stderr how long a stage took."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            print(f"{self.name}: {time.monotonic() - self.start:.1f} s", file=sys.stderr)
