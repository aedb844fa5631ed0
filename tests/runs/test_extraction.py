"""Extraction of a run: training waits for its own videos alone, and what another process did not do is done."""

from dataclasses import replace
from pathlib import Path

import pytest

from feature_extraction.pipeline.run import extract
from wtal.config.load import load_config
from wtal.config.sandbox import SandboxSettings
from wtal.config.shipped import resolve
from wtal.datasets.sandbox.render import render_world
from wtal.runs import extraction
from wtal.runs.extraction import extracted, for_tests_alone

WORLD = SandboxSettings(training_videos=2, test_videos=2, min_seconds=18.0, max_seconds=24.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    render_world(folder / "world", WORLD)
    return folder / "world"


@pytest.fixture
def config(world, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "usable_cores", lambda: 2)
    places = {"annotations": world / "annotations.json", "videos": world / "videos", "features": tmp_path / "features"}
    settings = [f"data.{name}={place}" for name, place in places.items()]
    return load_config("sandbox", ["extraction.streams=[clip]", *settings])


def stored(config):
    return {path.stem: path.read_bytes() for path in Path(config.data.features).glob("clip-*/*.npy")}


def test_test_videos_come_beside_training_and_are_the_same(config, world, tmp_path):
    videos = {path.stem for path in (world / "videos").iterdir()}
    later = for_tests_alone(config)
    assert len(later) == 2 and later < videos
    with extracted(config) as rest:
        assert videos - later <= stored(config).keys()
        assert rest() == {}
    with extracted(config) as again:
        # nothing lacks features any more: no other process, and all was looked at before training
        assert again() == {}
    extract(world / "videos", tmp_path / "whole", config.extraction, resolve=resolve)
    whole = {path.stem: path.read_bytes() for path in (tmp_path / "whole").glob("clip-*/*.npy")}
    assert stored(config) == whole and whole.keys() == videos


def test_what_the_other_process_did_not_do_is_done_and_told(config, monkeypatch, world, tmp_path):
    started = []

    class Idle:
        def __init__(self, **words):
            started.append(words["args"][-1])

        def start(self):
            pass

        def terminate(self):
            pass

    class Spawn:
        Process = Idle

    monkeypatch.setattr(extraction.multiprocessing, "get_context", lambda kind: Spawn)
    broken = tmp_path / "videos"
    broken.mkdir()
    for path in (world / "videos").iterdir():
        (broken / path.name).symlink_to(path)
    lost = min(for_tests_alone(config))
    (broken / f"{lost}.mp4").unlink()
    (broken / f"{lost}.mp4").write_bytes(b"no video")
    config = replace(config, data=replace(config.data, videos=str(broken)))
    with extracted(config) as rest:
        assert started == [for_tests_alone(config)]
        assert rest().keys() == {lost}
    assert len(stored(config)) == 3


def test_it_ends_with_a_training_that_fails(config, monkeypatch):
    made = []
    context = extraction.multiprocessing.get_context("spawn")

    class Spawn:
        @staticmethod
        def Process(**words):
            made.append(context.Process(**words))
            return made[0]

    monkeypatch.setattr(extraction.multiprocessing, "get_context", lambda kind: Spawn)
    with pytest.raises(RuntimeError, match="training"), extracted(config):
        assert made[0].is_alive()
        raise RuntimeError("training")
    made[0].join(30)
    assert made[0].exitcode == -15


def test_everything_comes_first_where_nothing_is_known_to_wait(config, monkeypatch):
    semi = replace(config.semi, consistency=1.0)
    assert for_tests_alone(replace(config, semi=semi)) == set()
    prefixed = replace(config, data=replace(config.data, features_prefix="v_"))
    assert for_tests_alone(prefixed) == {f"v_{video_id}" for video_id in for_tests_alone(config)}
    monkeypatch.setattr(extraction, "usable_cores", lambda: 1)
    monkeypatch.setattr(extraction.multiprocessing, "get_context", lambda kind: pytest.fail("a process"))
    with extracted(config) as rest:
        assert len(stored(config)) == 4
    assert rest() == {}
