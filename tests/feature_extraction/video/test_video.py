"""Decoding: the right frames at the right times, or a clear failure."""

import os
import signal
import subprocess
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_extraction.audio import read_audio
from feature_extraction.settings import ExtractionSettings
from feature_extraction.video.child import _Sender
from feature_extraction.video.process import DecodeProcess
from feature_extraction.video.read import (
    GridSampler,
    SourceFrame,
    UnreadableVideo,
    VideoInfo,
    _Clock,
    probe,
    read_frames,
    shortfall,
)

from ...places import SHARED


def decode(path, **values):
    """Everything that the child says of a video: frames, closing record, restarts."""
    child = DecodeProcess(ExtractionSettings(**{"short_side": None, "crop": None, **values}))
    frames, restarts, info = [], [], None
    try:
        for kind, content in child.frames(path):
            if kind == "frames":
                frames.append(content)
            elif kind == "restart":
                frames.clear()
                restarts.append(content)
            else:
                info = content
    finally:
        child.close()
    return np.concatenate(frames), info, restarts


def levels(frames_NHWC):
    return frames_NHWC.reshape(len(frames_NHWC), -1).mean(axis=1)


@settings(max_examples=200, deadline=None)
@given(
    gaps=st.lists(st.integers(5, 400), min_size=0, max_size=40),
    fps=st.sampled_from([5.0, 12.5, 25.0, 30.0, 60.0]),
    start=st.sampled_from([0.0, 1.4, -0.08]),
)
def test_grid_takes_the_nearest_frame_at_every_time(gaps, fps, start):
    """Against the definition, for every grid time: |time - nearest| (ties within 1 ms aside)."""
    times = np.concatenate([[0], np.cumsum(gaps)]) / 1000
    sampler = GridSampler(fps)
    picked = []
    for number, time in enumerate(times):
        frame = SourceFrame(start + time, 0.04, np.full((1, 1, 3), number, np.uint8))
        chosen = sampler.push(frame)
        picked += [] if chosen is None else [int(chosen[0][0, 0, 0])] * chosen[1]
    chosen = sampler.finish()
    picked += [] if chosen is None else [int(chosen[0][0, 0, 0])] * chosen[1]
    assert sampler.duration == pytest.approx(times[-1] + 0.04)
    assert abs(len(picked) - sampler.duration * fps) <= 1
    assert picked == sorted(picked)
    for j, number in enumerate(picked):
        distance = np.abs(times - j / fps)
        assert distance[number] <= distance.min() + 0.0021


def test_frames_without_progress_in_time_are_dropped():
    sampler = GridSampler(10.0)
    for time in (0.0, 0.1, 0.1, 0.05, 0.2):
        sampler.push(SourceFrame(time, 0.1, np.zeros((1, 1, 3), np.uint8)))
    sampler.finish()
    assert (sampler.read, sampler.emitted) == (5, 3)


@pytest.mark.parametrize(
    ("codec", "name", "pixel_format", "decoder"),
    [
        ("libx264", "a.mp4", "yuv420p", "decord"),
        ("libx265", "a.mp4", "yuv420p", "decord"),
        ("libsvtav1", "a.mp4", "yuv420p", "decord"),
        ("libvpx-vp9", "a.webm", "yuv420p", "decord"),
        ("libx264", "a.mkv", "yuv420p10le", "pyav"),
    ],
)
def test_codecs_give_every_frame_at_its_time(tmp_path, write_video, gray_steps, codec, name, pixel_format, decoder):
    path = write_video(tmp_path / name, gray_steps(40, step=5), codec=codec, pixel_format=pixel_format)
    frames, info, _ = decode(path)
    assert info["decoder"] == decoder
    assert info["frames"] == len(frames) == 40
    assert info["duration"] == pytest.approx(1.6, abs=0.04)
    np.testing.assert_allclose(levels(frames), 40 + 5 * np.arange(40), atol=2.1)


@pytest.mark.parametrize(
    ("pts", "dts", "expected"),
    [
        # an Xvid AVI with B-frames (UCF101): times of display go back and forth, those of decoding are in order
        ([1, 2, 4, 3, 5, 7, 6, 8, 10, 9, 11], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [1, 2, 4, 4, 5, 6, 7, 8, 9, 10, 11]),
        # an MP4: times of display are right, whatever the others are
        ([0, 2, 3, 7, 8], [-2, -1, 0, 1, 2], [0, 2, 3, 7, 8]),
        ([0, 2, 3, 7, 8], [5, 5, 5, 5, 5], [0, 2, 3, 7, 8]),
        ([0, 1, 2], [None, None, None], [0, 1, 2]),
        ([None, None, 2], [4, 5, 6], [4, 5, 2]),
        ([None], [None], [None]),
    ],
)
def test_the_time_of_a_frame_is_the_one_that_goes_on(pts, dts, expected):
    clock = _Clock()
    frames = [SimpleNamespace(pts=p, dts=d, time_base=Fraction(1, 25)) for p, d in zip(pts, dts, strict=True)]
    assert [clock.time(frame) for frame in frames] == [None if t is None else t / 25 for t in expected]


def test_decord_and_pyav_agree_bit_by_bit(tmp_path, write_video):
    frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", frames)
    by_decord, info, _ = decode(path, decoder="decord")
    by_pyav, same, _ = decode(path, decoder="pyav")
    np.testing.assert_array_equal(by_decord, by_pyav)
    assert {**info, "decoder": ""} == {**same, "decoder": ""}


def test_variable_frame_rate_follows_the_clock(tmp_path, write_video, gray_steps):
    # 20 frames at 40 ms, then 10 at 120 ms
    times = np.concatenate([40 * np.arange(20), 800 + 120 * np.arange(10)])
    path = write_video(tmp_path / "a.mkv", gray_steps(30, step=7), times=times)
    for decoder in ("decord", "pyav"):
        frames, _, _ = decode(path, decoder=decoder)
        shown = np.rint((levels(frames) - 40) / 7).astype(int)
        grid = np.arange(len(frames)) * 40
        expected = np.abs(times[None] - grid[:, None]).argmin(axis=1)
        assert len(frames) in (48, 49, 50)
        np.testing.assert_array_equal(shown[:46], expected[:46])


def test_other_rates_are_resampled(tmp_path, write_video, gray_steps):
    path = write_video(tmp_path / "a.mp4", gray_steps(60, step=3, first=30), fps=50)
    frames, info, _ = decode(path, fps=12.5)
    np.testing.assert_allclose(levels(frames), 30 + 3 * np.arange(0, 60, 4), atol=2)
    assert info["duration"] == pytest.approx(1.2)


def test_odd_sizes_and_the_short_side(tmp_path, write_video, gray_steps):
    path = write_video(tmp_path / "a.mp4", gray_steps(4, 51, 77), pixel_format="yuv444p")
    assert decode(path)[0].shape == (4, 51, 77, 3)
    assert decode(path, short_side=34)[0].shape == (4, 34, 51, 3)


def test_rotation_is_applied(tmp_path, write_video):
    """A picture with a bright top shows it at the side that the display matrix says."""
    frames = np.full((6, 48, 64, 3), 20, np.uint8)
    frames[:, :16] = 220
    path = write_video(tmp_path / "a.mp4", frames)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the 3x3 matrix of the track header
    one = 1 << 16
    quarter_clockwise = [0, one, 0, -one % (1 << 32), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big") for value in quarter_clockwise)
    path.write_bytes(data)
    assert probe(path).rotation == 270
    turned, info, _ = decode(path)
    assert turned.shape == (6, 64, 48, 3)
    assert info["rotation"] == 270
    # Clockwise by a quarter: the top goes to the right
    assert turned[:, :, -10:].mean() > 200
    assert turned[:, :, :20].mean() < 40


def test_one_frame_is_a_video(tmp_path, write_video, gray_steps):
    frames, info, _ = decode(write_video(tmp_path / "a.mp4", gray_steps(1)))
    assert len(frames) == info["frames"] == info["source_frames"] == 1


def make_audio_only(path):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        for number in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_title_that_is_no_utf8_is_no_obstacle(tmp_path):
    import av

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QQQQQQQQ"
        picture, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=8000)
        picture.width = picture.height = 64
        picture.pix_fmt, sound.layout = "yuv420p", "mono"
        for number in range(4):
            container.mux(picture.encode(av.VideoFrame(64, 64, "yuv420p")))
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * number
            container.mux(sound.encode(frame))
        container.mux([*picture.encode(), *sound.encode()])
    content = path.read_bytes()
    assert content.count(b"QQQQQQQQ") == 1
    path.write_bytes(content.replace(b"QQQQQQQQ", bytes([0xE9]) * 8))
    assert decode(path)[1]["frames"] == 4
    assert len(read_audio(path, 8000)) >= 4096


def test_files_that_are_no_video_say_why(tmp_path):
    make_audio_only(tmp_path / "sound.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "folder.mp4").mkdir()
    expected = {
        "sound": "only sound",
        "empty": "0 bytes",
        "text": "cannot be decoded",
        "folder": "no file",
        "gone": "cannot be opened",
    }
    for name, words in expected.items():
        with pytest.raises(UnreadableVideo, match=words):
            probe(tmp_path / f"{name}.mp4")
        with pytest.raises(UnreadableVideo, match=words):
            decode(tmp_path / f"{name}.mp4")
        for decoder in ("decord", "pyav"):
            with pytest.raises(UnreadableVideo):
                list(read_frames(tmp_path / f"{name}.mp4", decoder))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_video_that_breaks_off_fails_with_what_could_be_read(tmp_path, write_video, name):
    noise = np.random.default_rng(0).integers(0, 256, (100, 48, 64, 3), np.uint8)
    options = {"preset": "ultrafast", "crf": "20", "g": "10"}
    if name.endswith("mp4"):
        # The index first, as in files made for streaming: cut files of the other kind cannot be opened at all
        whole = write_video(tmp_path / "whole.mp4", noise, options=options)
        subprocess_free_faststart(whole, tmp_path / name)
    else:
        write_video(tmp_path / name, noise, options=options)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableVideo, match="breaks off after") as caught:
        decode(tmp_path / name)
    assert 20 < caught.value.frames < 80
    frames, info, _ = decode(tmp_path / name, accept_truncated=True)
    assert 20 < len(frames) < 80
    assert info["truncated"]


def subprocess_free_faststart(source, target):
    """Copy an mp4 with its index at the front."""
    import av

    with av.open(str(source)) as reader, av.open(str(target), "w", options={"movflags": "faststart"}) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                writer.mux(packet)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_decoder_that_dies_or_hangs_is_replaced(tmp_path, write_video, end):
    path = write_video(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 256, (100, 256, 256, 3), np.uint8))
    child = DecodeProcess(ExtractionSettings(short_side=None, crop=None, stall_seconds=20))
    stream = child.frames(path)
    assert [next(stream)[0] for _ in range(2)] == ["begin", "frames"]
    child.settings = ExtractionSettings(short_side=None, crop=None, stall_seconds=3)
    os.kill(child._process.pid, end)
    kinds, count = [], 0
    for kind, content in stream:
        kinds.append(kind)
        if kind == "restart":
            assert ("crashes" if end == signal.SIGKILL else "hangs") in content
            child.settings = ExtractionSettings(short_side=None, crop=None, stall_seconds=60)
            count = 0
        elif kind == "frames":
            count += len(content)
    child.close()
    assert kinds.count("restart") == 1 and kinds[-1] == "done"
    assert content["decoder"] == "pyav" and count == 100


def test_one_child_serves_many_videos_and_goes_on_after_a_bad_one(tmp_path, write_video, gray_steps):
    good = write_video(tmp_path / "good.mp4", gray_steps(5))
    (tmp_path / "bad.mp4").write_bytes(b"x" * 1000)
    child = DecodeProcess(ExtractionSettings(short_side=None, crop=None))
    assert list(child.frames(good))[-1][1]["frames"] == 5
    process = child._process.pid
    with pytest.raises(UnreadableVideo):
        list(child.frames(tmp_path / "bad.mp4"))
    assert list(child.frames(good))[-1][1]["frames"] == 5
    assert child._process.pid == process
    child.close()
    assert subprocess.run(["kill", "-0", str(process)], capture_output=True).returncode != 0


def test_times_that_span_ages_are_refused(tmp_path, write_video, gray_steps):
    path = write_video(tmp_path / "a.mkv", gray_steps(3), times=[0, 40, 400_000])
    with pytest.raises(UnreadableVideo, match="max_frames"):
        decode(path, max_frames=1000)
    with pytest.raises(UnreadableVideo, match="max_pixels"):
        decode(path, max_pixels=1000)


def test_code_beside_the_videos_is_not_run(tmp_path, write_video, gray_steps, monkeypatch):
    """A folder of videos from elsewhere may hold an av.py, and people change into such folders."""
    write_video(tmp_path / "a.mp4", gray_steps(3))
    for name in ("av.py", "decord.py", "json.py"):
        (tmp_path / name).write_text("open('ran', 'w'); raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert len(decode(Path("a.mp4"), decoder="pyav")[0]) == 3
    assert not (tmp_path / "ran").exists()


def test_a_few_frames_back_in_time_are_dropped_and_many_are_told():
    frame = np.zeros((1, 1, 3), np.uint8)

    def sampled(times):
        sampler = GridSampler(25.0)
        for time in times:
            sampler.push(SourceFrame(time, 0.04, frame))
        return sampler

    order = list(np.arange(300) * 0.04)
    swapped = [*order[:10], order[11], order[10], *order[12:]]
    assert (sampled(swapped).backward, sampled(swapped).disorder("pyav")) == (1, "")
    again = [*order[:100], *order[90:]]
    assert sampled(again).disorder("pyav") == "9 of its 310 frames do not come later than the one before"
    doubled = np.repeat(order, 2)
    assert sampled(doubled).disorder("pyav") == "" and "300 of its 600" in sampled(doubled).disorder("decord")


@pytest.mark.parametrize("width", [64, 96])  # decord's times are sorted there, or it cannot read the pictures
def test_recordings_joined_end_to_end_break_off(tmp_path, write_video, gray_steps, width):
    parts = [write_video(tmp_path / f"{i}.ts", gray_steps(50, width=width, step=2 + i)) for i in range(2)]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(UnreadableVideo, match="breaks off after 50 frames: its times jump back by 2.0 s"):
        decode(tmp_path / "a.ts")
    frames, info, _ = decode(tmp_path / "a.ts", accept_truncated=True)
    assert len(frames) == info["source_frames"] == 50 and "jump back" in info["truncated"]
    np.testing.assert_allclose(levels(frames), 40 + 2 * np.arange(50), atol=2.1)


def test_a_jump_ahead_of_hours_breaks_off(tmp_path, write_video, gray_steps):
    times = [*(40 * np.arange(10)), *(250_000_000 + 40 * np.arange(10))]
    path = write_video(tmp_path / "a.mkv", gray_steps(20), times=times)
    with pytest.raises(UnreadableVideo, match="breaks off after 10 frames: .* jump ahead by 250000 s"):
        decode(path)


def stated(duration, frames=0):
    return VideoInfo("h264", "yuv420p", 64, 64, 25.0, frames, duration, 0, 8, False)


def test_what_is_missing_of_a_long_video_is_told():
    def sampler(times):
        made = GridSampler(1.0)
        for time in times:
            made.push(SourceFrame(float(time), 1.0, np.zeros((1, 1, 3), np.uint8)))
        return made

    assert shortfall(stated(102.0), sampler(range(100))) == ""
    assert "ends 4.0 s before" in shortfall(stated(104.0), sampler(range(100)))
    assert "ends 30.0 s before" in shortfall(stated(10_830.0), sampler(range(10_800)))
    assert shortfall(stated(10.9), sampler(range(10))) == "" and shortfall(stated(11.1), sampler(range(10)))
    # Damage in the middle; an edit list that hides frames; a picture that stood still
    hole = [*range(50), *range(90, 140)]
    assert "lacks 40 of its stated 140 frames" in shortfall(stated(140.0, 140), sampler(hole))
    assert shortfall(stated(100.0, 140), sampler(range(100))) == ""
    assert shortfall(stated(140.0, 100), sampler(hole)) == ""


def test_a_picture_that_changes_its_shape_between_chunks_fails():
    sender = _Sender(None, 32)
    sender.flush = lambda: sender.frames.clear()
    for _ in range(64):
        sender.add(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(UnreadableVideo, match="changes its picture's shape"):
        sender.add(np.zeros((96, 64, 3), np.uint8))
    sender.header = lambda **_: None
    sender.restart("decord")
    sender.add(np.zeros((96, 64, 3), np.uint8))


def test_a_thin_picture_is_refused_before_it_is_blown_up(tmp_path, write_video, gray_steps):
    path = write_video(tmp_path / "a.mkv", gray_steps(2, 2, 4096), codec="ffv1", pixel_format="bgr0")
    with pytest.raises(UnreadableVideo, match="524288x256 after resizing, more than max_pixels"):
        decode(path, short_side=256)
    assert decode(path)[0].shape == (2, 2, 4096, 3)


REAL = SHARED / "videos"


def test_every_frame_of_the_real_clips_is_taken():
    paths = sorted(path for path in (REAL / "clips").glob("*") if path.suffix in (".mp4", ".mkv", ".avi"))
    if not paths:
        pytest.skip("no real data beside the checkout: videos/clips")
    whole = [path for path in paths if path.stem != "corrupted"]
    assert len(whole) == 9
    for path in whole:
        _, info, _ = decode(path, short_side=32)
        sampler = GridSampler(25.0)
        for frame in read_frames(path, info["decoder"]):
            sampler.push(frame)
        stated = probe(path).frames  # 0 where the header does not say
        assert sampler.read == info["source_frames"] and stated in (0, sampler.read), path
        assert sampler.backward == 0 and sampler.repeated <= 1, path
