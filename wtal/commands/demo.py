"""The whole path on a small rendered world: render, extract, train, predict, evaluate, report.

It takes under two minutes on two CPU cores; with --quick, under one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from wtal.commands.run import run_all, stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, for example seed=1")
    parser.add_argument("--quick", action="store_true", help="fewer, shorter videos and less training; the same path")
    parser.add_argument("--out", type=Path, help="run folder (default: ./runs/demo, or ./runs/demo-quick)")


def run(options: argparse.Namespace) -> int:
    return demo(options.quick, options.out, options.overrides)


QUICK = (
    # fewer, shorter videos and fewer steps; everything else is the same
    "sandbox.training_videos=12",
    "sandbox.test_videos=6",
    "sandbox.min_seconds=18",
    "sandbox.max_seconds=24",
    "sandbox.max_instances=2",
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
    from wtal.config.load import load_config
    from wtal.datasets.sandbox.render import render_world

    folder = out or Path("runs") / ("demo-quick" if quick else "demo")
    world = folder / "world"
    places = {"annotations": world / "annotations.json", "videos": world / "videos", "features": folder / "features"}
    settings = [f"out={folder}", *(f"data.{name}={place}" for name, place in places.items())]
    config = load_config("sandbox", [*settings, *(QUICK if quick else ()), *overrides])
    with stage("render"):
        render_world(world, config.sandbox)
    return run_all(config, bundle=False)
