"""Extraction for a run that goes on by itself: training waits for its own videos, not for those that will be tested."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from feature_extraction.flow.compute import usable_cores
from feature_extraction.networks.towers import pick_device
from feature_extraction.pipeline.run import extract
from feature_extraction.settings import ExtractionSettings
from feature_extraction.video.listing import list_videos
from wtal.config.load import Config
from wtal.config.shipped import resolve
from wtal.datasets.formats.by_name import load_annotations
from wtal.datasets.splits import split

NICENESS = 10
"""Of the process beside training, so that it takes what training leaves."""


def for_tests_alone(config: Config) -> set[str]:
    """Ids of the video files that training does not need: those of the test videos, where nothing but labelled
    training videos teaches."""
    if config.semi.used:
        return set()
    parts = split(load_annotations(config.data), config.data)
    ids = parts.test.videos.keys() - parts.train.videos.keys() - parts.held_out.videos.keys()
    return {config.data.features_prefix + video_id for video_id in ids}


@contextmanager
def extracted(config: Config) -> Iterator[Callable[[], dict[str, str]]]:
    """Inside it the videos that training needs have features, and the others are being extracted by another process,
    where that is worth one: on a CPU with a core to spare.

    Yields what is to be called once training is over: it waits for that process's last video, does what it did not, and
    returns the videos that could not be read, id to reason.
    """
    data, settings = config.data, config.extraction
    apart = pick_device(settings.device).type == "cpu" and usable_cores() > 1
    every = {file.id for file in list_videos(data.videos)}
    later = _without_features(Path(data.features), for_tests_alone(config) & every) if apart else set()
    failed = extract(data.videos, data.features, settings, resolve=resolve, only=every - later).failed
    if not later:
        yield lambda: failed
        return
    words = data.videos, data.features, settings, later
    beside = multiprocessing.get_context("spawn").Process(target=_beside, args=words, daemon=True)
    beside.start()
    try:
        yield lambda: extract(data.videos, data.features, settings, resolve=resolve).failed
    finally:
        # done by now, or no longer wanted
        beside.terminate()


def _without_features(store: Path, video_ids: set[str]) -> set[str]:
    """Those that no stream has. One that a stream has may lack another, or be of an earlier file: it is not put off."""
    streams = [folder for folder in store.iterdir() if folder.is_dir()] if store.is_dir() else []
    return {i for i in video_ids if not any((folder / f"{i}.npy").is_file() for folder in streams)}


def _beside(videos: Sequence[str], out: str, settings: ExtractionSettings, only: set[str]) -> None:
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    # what goes wrong here goes wrong again, and is told, when the run itself asks for these videos
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        extract(videos, out, settings, resolve=resolve, progress=False, only=only)
