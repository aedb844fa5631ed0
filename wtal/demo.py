"""`wtal demo`: the production path, stage after stage, with `configs/sandbox.yaml` on a world rendered on the spot."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from feature_extraction.errors import RunFailure
from feature_extraction.files import read_json
from feature_extraction.pipeline import extract
from wtal.config import load_config
from wtal.prediction import predict_run
from wtal.report.build import report_run
from wtal.sandbox.render import render_world
from wtal.shipped import resolve
from wtal.summary import summary_table
from wtal.training.run import train

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
