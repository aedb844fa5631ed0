"""The inputs of the tool that measures cost against size: as long and as many as it says."""

import json

import av
import pytest

from . import places


@pytest.fixture(scope="module")
def tool():
    return places.tool("bench_curves")


def test_a_video_repeated_is_as_long_as_asked_and_of_the_same_pictures(tool, tmp_path, write_video, gray_steps):
    write_video(tmp_path / "short.mp4", gray_steps(50, step=4))
    tool.repeat(tmp_path / "short.mp4", tmp_path / "long" / "long.mp4", 5.0)
    with av.open(str(tmp_path / "long" / "long.mp4")) as video:
        frames = [(frame.time, frame.to_ndarray(format="gray").mean()) for frame in video.decode(video=0)]
    assert len(frames) == 150  # three times two seconds of 25 frames
    times, grays = zip(*frames, strict=True)
    assert times == pytest.approx([times[0] + number / 25 for number in range(150)], abs=1e-3)
    assert grays[:50] == grays[50:100] == grays[100:]


def test_generated_detections_are_a_hundred_a_video_of_a_class_that_it_has(tool, tmp_path):
    tool.generate(tmp_path / "truth.json", tmp_path / "found.json", 30)
    truth = json.loads((tmp_path / "truth.json").read_text())["database"]
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    assert set(found) == set(truth) and {len(own) for own in found.values()} == {100}
    for video_id, own in found.items():
        assert {d["label"] for d in own} == {a["label"] for a in truth[video_id]["annotations"]}
