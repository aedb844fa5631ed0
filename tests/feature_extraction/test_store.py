"""The feature store: ids, whole-or-absent files, what is refused."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_extraction.errors import UserError
from feature_extraction.failures import FailureLog
from feature_extraction.store import create_stream, encode_id, open_streams, video_ids

IDENTITY = {"fps": 25.0, "window": 16, "stride": 16, "dim": 3, "network": {"width": 1}}


def test_ids_are_readable_and_tell_videos_apart():
    ids = video_ids(["a/clip.mp4", "b/clip.mp4", "my clip é.mp4", "x.mp4", "x.avi", "50%.mkv", ".h.mp4", "v.1.mp4"])
    assert ids == {
        "a%2Fclip": "a/clip.mp4",
        "b%2Fclip": "b/clip.mp4",
        "my clip é": "my clip é.mp4",
        "x.mp4": "x.mp4",
        "x.avi": "x.avi",
        "50%25": "50%.mkv",
        "%2Eh": ".h.mp4",
        "v.1": "v.1.mp4",
    }
    # Keeping a suffix may clash with a third file's id
    assert set(video_ids(["x.mp4", "x.avi", "x.mp4.mp4"]).values()) == {"x.mp4", "x.avi", "x.mp4.mp4"}


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(lambda s: s not in (".", "..")),
                min_size=1, max_size=5, unique=True))  # fmt: skip
def test_any_name_becomes_one_file_name(names):
    ids = video_ids(names)
    assert sorted(ids.values()) == sorted(names)
    for video_id in ids:
        assert not video_id.startswith(".") and "/" not in video_id
        assert len((video_id + ".json").encode()) < 255


def test_long_ids_are_cut_and_stay_different():
    one, two = encode_id("é" * 400), encode_id("é" * 401)
    assert one != two and len(one.encode()) <= 200


def test_write_and_read_back(tmp_path):
    stream = create_stream(tmp_path, "rgb", IDENTITY)
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    stream.write("a b", values, {"duration": 2.5})
    again = open_streams(tmp_path)["rgb"]
    assert again.ids() == ["a b"] and "a b" in again and "c" not in again
    array = again.read("a b")
    assert array.dtype == np.float16 and not array.flags.writeable
    np.testing.assert_array_equal(array, values)
    assert again.sidecar("a b") == {"T": 4, "fps": 25.0, "duration": 2.5}
    assert again.grid.snippet_seconds == 0.64 and again.dim == 3
    assert json.loads((stream.folder / "stream.json").read_text())["stream"] == "rgb"


def test_the_folder_tells_what_made_it(tmp_path):
    first = create_stream(tmp_path, "rgb", IDENTITY)
    assert create_stream(tmp_path, "rgb", dict(reversed(IDENTITY.items()))).folder == first.folder
    other = create_stream(tmp_path, "rgb", {**IDENTITY, "network": {"width": 2}})
    assert other.folder != first.folder
    with pytest.raises(UserError, match="several rgb streams"):
        open_streams(tmp_path)
    assert open_streams(tmp_path, [other.folder.name])["rgb"].folder == other.folder
    with pytest.raises(UserError, match="no stream 'flow'"):
        open_streams(tmp_path, ["flow"])


def test_what_is_refused(tmp_path):
    stream = create_stream(tmp_path, "rgb", IDENTITY)
    for wrong in (np.zeros((4, 2)), np.zeros(3), np.zeros((0, 3)), np.full((1, 3), np.nan), np.full((1, 3), 1e6)):
        with pytest.raises(UserError):
            stream.write("v", wrong, {})
    assert stream.ids() == []
    for bad in ("../v", "a/b", "", ".hidden", "a\0b"):
        with pytest.raises(UserError, match="no video id"):
            stream.read(bad)
    with pytest.raises(UserError, match="no features of video 'v'"):
        stream.read("v")
    stream.array_path("v").write_bytes(b"\x93NUMPY junk")
    with pytest.raises(UserError, match="not a readable array"):
        stream.read("v")
    np.save(stream.array_path("v"), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not a readable array"):
        stream.read("v")
    with pytest.raises(UserError, match="no such feature store"):
        open_streams(tmp_path / "none")


def test_a_kill_while_writing_leaves_no_array(tmp_path, monkeypatch):
    stream = create_stream(tmp_path, "rgb", IDENTITY)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        stream.write("v", np.zeros((2, 3)), {})
    assert stream.ids() == []
    assert [path.name for path in stream.folder.iterdir()] == ["stream.json"]


def test_failures_are_gathered_from_records(tmp_path):
    (tmp_path / "a.mp4").touch()
    log = FailureLog(tmp_path / "store")
    log.record("a", tmp_path / "a.mp4", "is empty", 0)
    log.record("b", tmp_path / "b.mp4", "is gone since", 0)
    assert [entry["id"] for entry in log.gather()] == ["a"]
    assert [entry["reason"] for entry in log.read()] == ["is empty"]
    log.forget("a")
    assert log.gather() == [] and not (tmp_path / "store" / "failures.jsonl").exists()
