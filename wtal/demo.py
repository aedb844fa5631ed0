"""`wtal demo`: the production path, stage after stage, with `configs/sandbox.yaml` on a world rendered on the spot."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from feature_extraction.pipeline import extract
from wtal.config import Config, load_config
from wtal.prediction import predict_run
from wtal.report.build import report_run
from wtal.runs import RunFolder
from wtal.sandbox.render import render_world
from wtal.shipped import resolve
from wtal.summary import summary_table
from feature_extraction.files import read_json


def demo(quick: bool, out: Path | None, overrides: Sequence[str]) -> int:
    """Run every stage that is not done yet; prints the table of the four rows and where the report lies."""
    name = "sandbox_quick" if quick else "sandbox"
    folder = out or Path("runs") / ("demo-quick" if quick else "demo")
    world, store = folder / "world", folder / "features"
    config = load_config(
        name,
        [f"out={folder / 'run'}", f"data.annotations={world / 'annotations.json'}", f"data.features={store}", *overrides],
    )
    from wtal.training.run import train

    with _Stage("render"):
        render_world(world, config.sandbox)
    with _Stage("extract"):
        extract(world / "videos", store, config.extraction, resolve=resolve)
    with _Stage("train"):
        run, _ = train(config)
    with _Stage("predict and evaluate"):
        predict_run(run, run.predictions, "ours", (), None)
    with _Stage("report"):
        index = report_run(run)
    summary = read_json(run.summary)
    print(summary_table(summary))
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
