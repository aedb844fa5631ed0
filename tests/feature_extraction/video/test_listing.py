"""Which videos a folder holds, and under which ids."""

import numpy as np
import pytest

from feature_extraction.errors import UserError
from feature_extraction.networks.towers import Tower
from feature_extraction.pipeline import run as pipeline
from feature_extraction.settings import ExtractionSettings
from feature_extraction.video.listing import list_videos


def test_linked_folders_are_searched_once_and_keep_the_names_of_real_ones(tmp_path):
    for folder in ("in/real", "elsewhere/deep", "in/.hidden"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "v.mp4").touch()
    for name, target in (("a", "in/real"), ("disk", "elsewhere"), ("loop", "in"), ("up", "."), ("z", "elsewhere")):
        (tmp_path / "in" / name).symlink_to(tmp_path / target)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    assert [file.id for file in list_videos(tmp_path / "in")] == ["disk%2Fdeep%2Fv", "real%2Fv"]


def test_a_video_that_got_another_id_is_named(tmp_path, write_video, gray_steps, monkeypatch):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", gray_steps(17))
    settings = ExtractionSettings(streams=("rgb",), short_side=32, crop=None, device="cpu")
    tower = Tower(lambda inputs: np.stack([[clip.mean()] for clip in inputs]), 1, {})
    monkeypatch.setattr(pipeline, "load_towers", lambda *_: {"rgb": tower})
    assert pipeline.extract(tmp_path / "in", tmp_path / "out", settings).renamed == {}
    write_video(tmp_path / "in" / "a.mkv", gray_steps(17))
    summary = pipeline.extract(tmp_path / "in", tmp_path / "out", settings)
    assert sorted(summary.done) == ["a.mkv", "a.mp4"] and summary.renamed == {"a": "a.mp4"}


def test_folders_without_videos_are_refused(tmp_path):
    with pytest.raises(UserError, match="no videos in this folder"):
        list_videos(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        list_videos(tmp_path / "none")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "v.mp4").touch()
    with pytest.raises(UserError, match="both have the id 'v'"):
        list_videos([tmp_path / "a", tmp_path / "b"])


def test_links_that_go_round_are_failures_and_the_others_are_done(tmp_path, write_video, gray_steps, monkeypatch):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "good.mp4", gray_steps(17))
    for name, target in (("a.mp4", "b.mp4"), ("b.mp4", "a.mp4"), ("self", "self"), ("gone.mp4", "nowhere.mp4")):
        (tmp_path / "in" / name).symlink_to(tmp_path / "in" / target)
    settings = ExtractionSettings(streams=("rgb",), short_side=32, crop=None, device="cpu")
    tower = Tower(lambda inputs: np.stack([[clip.mean()] for clip in inputs]), 1, {})
    monkeypatch.setattr(pipeline, "load_towers", lambda *_: {"rgb": tower})
    for place in (tmp_path / "in", [tmp_path / "in" / "a.mp4", tmp_path / "in" / "good.mp4"]):
        summary = pipeline.extract(place, tmp_path / "out", settings)
        assert [*summary.done, *summary.present] == ["good"] and "a" in summary.failed
    assert set(summary.failed) == {"a"}
    listed = (tmp_path / "out" / "failures.jsonl").read_text()
    assert all(f'"id": "{name}"' in listed for name in "ab")
