"""The pipeline: features of the right frames, failures named, the same bytes after a kill and among others."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_extraction.errors import RunFailure, UserError
from feature_extraction.flow.settings import TVL1Settings
from feature_extraction.networks.i3d import I3D
from feature_extraction.networks.towers import Tower, _i3d_runner
from feature_extraction.pipeline import run as pipeline
from feature_extraction.pipeline.assembly import Assembly
from feature_extraction.pipeline.run import Extractor
from feature_extraction.settings import ExtractionSettings
from feature_extraction.store.claims import Claims, in_shard
from feature_extraction.store.failures import FailureLog
from feature_extraction.store.stream import open_streams
from feature_extraction.video.listing import list_videos
from feature_extraction.video.read import UnreadableVideo

FAST_FLOW = TVL1Settings(scales=1, warps=1, inner_iterations=2, outer_iterations=1, median=1)
SMALL = ExtractionSettings(short_side=32, crop=None, flow=FAST_FLOW, precision="fp32", device="cpu")
CPU = torch.device("cpu")


def contents(store):
    """Every visible file of a store, by relative name."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(Path(store).rglob("*"))
        if path.is_file() and ".work" not in path.parts
    }


def test_features_are_those_of_the_frames(tmp_path, write_video, gray_steps, brightness_towers):
    frames = gray_steps(40, step=5)
    write_video(tmp_path / "in.mp4", frames)
    summary = Extractor(SMALL, brightness_towers, CPU).run(list_videos(tmp_path / "in.mp4"), tmp_path / "out")
    assert summary.done == ["in"] and not summary.failed and summary.frames == 40
    streams = open_streams(tmp_path / "out")
    rgb, clip, flow = (streams[name].read("in").astype(float) for name in ("rgb", "clip", "flow"))
    assert rgb.shape == (3, 16) and clip.shape == (3, 1) and flow.shape == (3, 16)
    numbers = np.minimum(np.arange(48).reshape(3, 16), 39)  # the last frame fills the tail
    np.testing.assert_allclose(rgb, 40 + 5 * numbers, atol=2.1)
    np.testing.assert_allclose(clip[:, 0], 40 + 5 * np.minimum([8, 24, 40], 39), atol=2.1)
    sidecar = streams["flow"].sidecar("in")
    assert (sidecar["T"], sidecar["padding"], sidecar["frames"], sidecar["duration"]) == (3, 8, 40, 1.6)
    assert sidecar["size"] == (tmp_path / "in.mp4").stat().st_size
    assert len(sidecar["sha256"]) == 64 and sidecar["source"] == str(tmp_path / "in.mp4")
    assert not (tmp_path / "out" / ".work").exists()


def test_flow_is_between_neighbours_and_the_last_one_repeats(tmp_path, write_video, brightness_towers):
    """A textured picture that moves right by 2 pixels a frame, and rests in its second half."""
    texture = np.random.default_rng(0).integers(0, 256, (9, 17, 3), np.uint8)
    texture = np.kron(texture, np.ones((8, 8, 1), np.uint8))
    shifts = np.minimum(2 * np.arange(20), 20)
    write_video(tmp_path / "in.mp4", np.stack([texture[:64, 30 - s : 94 - s] for s in shifts]))
    settings = ExtractionSettings(short_side=None, crop=None, window=4, stride=4, streams=("flow",), device="cpu")

    def x_motion(inputs):
        return np.stack([[clip[..., 0].mean() / 255 * 40 - 20] for clip in inputs])

    tower = Tower(x_motion, 1, {"architecture": "x"})
    Extractor(settings, {"flow": tower}, CPU).run(list_videos(tmp_path / "in.mp4"), tmp_path / "out")
    motion = open_streams(tmp_path / "out")["flow"].read("in")[:, 0].astype(float)
    assert len(motion) == 5
    # No motion is 128, which reads 0.08
    np.testing.assert_allclose(motion[:2], 2.0, atol=0.4)
    np.testing.assert_allclose(motion[3:], 0.08, atol=0.15)


def test_a_single_frame_has_no_motion(tmp_path, write_video, gray_steps, brightness_towers):
    write_video(tmp_path / "one.mp4", gray_steps(1))
    Extractor(SMALL, brightness_towers, CPU).run(list_videos(tmp_path / "one.mp4"), tmp_path / "out")
    np.testing.assert_array_equal(open_streams(tmp_path / "out")["flow"].read("one"), np.full((1, 16), 128))


def users_folder(folder, write_video, gray_steps):
    (folder / "left side").mkdir(parents=True)
    (folder / "rechts ü").mkdir()
    write_video(folder / "left side" / "clip 1.mp4", gray_steps(20, step=1))
    write_video(folder / "rechts ü" / "clip 1.mp4", gray_steps(20, step=4))
    write_video(folder / "片.mkv", gray_steps(20, step=3))
    (folder / "notes.mp4").write_text("these are notes\n")
    whole = write_video(
        folder / "broken.mkv", np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    ).read_bytes()
    (folder / "broken.mkv").write_bytes(whole[: len(whole) // 2])
    (folder / "labels.csv").write_text("video,label\n")
    (folder / "._片.mkv").write_text("what another system left")


def test_a_users_folder(tmp_path, write_video, gray_steps, brightness_towers):
    users_folder(tmp_path / "my videos", write_video, gray_steps)
    extractor = Extractor(SMALL, brightness_towers, CPU)
    summary = extractor.run(list_videos(tmp_path / "my videos"), tmp_path / "out")
    good = ["left side%2Fclip 1", "rechts ü%2Fclip 1", "片"]
    assert sorted(summary.done) == good and sorted(summary.failed) == ["broken", "notes"]
    entries = {entry["id"]: entry for entry in FailureLog(tmp_path / "out").read()}
    assert entries["notes"]["frames_read"] == 0 and "cannot be decoded" in entries["notes"]["reason"]
    assert "breaks off" in entries["broken"]["reason"] and entries["broken"]["frames_read"] > 5
    for stream in open_streams(tmp_path / "out").values():
        assert stream.ids() == good
    first, second = (open_streams(tmp_path / "out")["rgb"].read(name) for name in good[:2])
    assert not np.array_equal(first, second)
    # Again: what is there stays, what failed is tried again
    before = contents(tmp_path / "out")
    again = extractor.run(list_videos(tmp_path / "my videos"), tmp_path / "out")
    assert again.done == [] and sorted(again.present) == good and sorted(again.failed) == ["broken", "notes"]
    assert contents(tmp_path / "out") == before
    # Mended: no failure is left
    (tmp_path / "my videos" / "notes.mp4").unlink()
    write_video(tmp_path / "my videos" / "broken.mkv", gray_steps(5))
    assert extractor.run(list_videos(tmp_path / "my videos"), tmp_path / "out").done == ["broken"]
    assert not (tmp_path / "out" / "failures.jsonl").exists()


def test_a_changed_video_is_extracted_anew(tmp_path, write_video, gray_steps, brightness_towers):
    extractor = Extractor(SMALL, brightness_towers, CPU)
    for count in (20, 40):
        write_video(tmp_path / "in.mp4", gray_steps(count, step=3))
        assert extractor.run(list_videos(tmp_path / "in.mp4"), tmp_path / "out").done == ["in"]
    assert open_streams(tmp_path / "out")["rgb"].sidecar("in")["frames"] == 40


def test_a_copied_video_is_hashed_once(tmp_path, monkeypatch, write_video, gray_steps, brightness_towers):
    extractor = Extractor(SMALL, brightness_towers, CPU)
    write_video(tmp_path / "in.mp4", gray_steps(20))
    files = list_videos(tmp_path / "in.mp4")
    extractor.run(files, tmp_path / "out")
    os.utime(tmp_path / "in.mp4", ns=(0, 10**18))
    assert extractor.run(files, tmp_path / "out").present == ["in"]
    monkeypatch.setattr("feature_extraction.store.stream.sha256_file", None)
    assert extractor.run(files, tmp_path / "out").present == ["in"]


def test_what_a_file_no_longer_shows_is_not_left_in_the_store(tmp_path, write_video, gray_steps, brightness_towers):
    extractor = Extractor(SMALL, brightness_towers, CPU)
    write_video(tmp_path / "in.mp4", gray_steps(20))
    extractor.run(list_videos(tmp_path / "in.mp4"), tmp_path / "out")
    (tmp_path / "in.mp4").write_text("no video any more")
    summary = extractor.run(list_videos(tmp_path / "in.mp4"), tmp_path / "out")
    assert "earlier content were removed (rgb, flow, clip)" in summary.failed["in"]
    assert all(stream.ids() == [] for stream in open_streams(tmp_path / "out").values())


def test_a_truncated_video_is_tried_again_without_the_option(tmp_path, write_video, brightness_towers):
    noise = np.random.default_rng(0).integers(0, 256, (100, 48, 64, 3), np.uint8)
    whole = write_video(tmp_path / "in.mkv", noise).read_bytes()
    (tmp_path / "in.mkv").write_bytes(whole[: len(whole) // 2])
    files = list_videos(tmp_path / "in.mkv")
    loose = replace(SMALL, accept_truncated=True)
    assert Extractor(loose, brightness_towers, CPU).run(files, tmp_path / "out").done == ["in"]
    assert Extractor(loose, brightness_towers, CPU).run(files, tmp_path / "out").present == ["in"]
    summary = Extractor(SMALL, brightness_towers, CPU).run(files, tmp_path / "out")
    assert "breaks off" in summary.failed["in"] and "features of it are in the store" in summary.failed["in"]
    assert open_streams(tmp_path / "out")["rgb"].ids() == ["in"]


def test_a_video_that_grows_while_it_is_read_fails(tmp_path, write_video, gray_steps):
    from feature_extraction.video.child import _fingerprint, _stamp

    path = write_video(tmp_path / "in.mp4", gray_steps(5))
    before = _stamp(path)
    assert _fingerprint(path, before, None)["size"] == path.stat().st_size
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UnreadableVideo, match="was changed while"):
        _fingerprint(path, before, None)


def test_a_stream_added_later_is_the_only_one_made(tmp_path, write_video, gray_steps, brightness_towers):
    write_video(tmp_path / "in.mp4", gray_steps(20))
    some = {name: brightness_towers[name] for name in ("rgb", "flow")}
    Extractor(SMALL, some, CPU).run(list_videos(tmp_path / "in.mp4"), tmp_path / "out")
    before = contents(tmp_path / "out")
    Extractor(SMALL, brightness_towers, CPU).run(list_videos(tmp_path / "in.mp4"), tmp_path / "out")
    after = contents(tmp_path / "out")
    assert before.items() < after.items() and len(after) == len(before) + 3


SCRIPT = """
    import sys
    import numpy as np, torch
    from feature_extraction.flow.settings import TVL1Settings
    from feature_extraction.video.listing import list_videos
    from feature_extraction.pipeline.run import Extractor
    from feature_extraction.settings import ExtractionSettings
    from feature_extraction.networks.towers import Tower
    import time

    def snippets(inputs):
        time.sleep(float(sys.argv[3]))
        return np.stack([clip.reshape(len(clip), -1).mean(axis=1) for clip in inputs]).astype(np.float32)

    flow = TVL1Settings(scales=1, warps=1, inner_iterations=2, outer_iterations=1, median=1)
    settings = ExtractionSettings(short_side=32, crop=None, flow=flow, precision="fp32", device="cpu",
                                  streams=("rgb", "flow"))
    tower = Tower(snippets, 16, {"architecture": "brightness"})
    summary = Extractor(settings, {"rgb": tower, "flow": tower}, torch.device("cpu")).run(
        list_videos(sys.argv[1]), __import__("pathlib").Path(sys.argv[2]))
    print(len(summary.done), len(summary.present))
"""


def start(videos, out, pause):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(videos), str(out), str(pause)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_killed_and_run_again_gives_the_bytes_of_an_unbroken_run(tmp_path, write_video, gray_steps):
    (tmp_path / "in").mkdir()
    for number in range(6):
        write_video(tmp_path / "in" / f"{number}.mp4", gray_steps(24 + 3 * number, step=1 + number))
    killed = start(tmp_path / "in", tmp_path / "killed", 0.1)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("*/*.npy")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    left = {path.name for path in (tmp_path / "killed").glob("*/*.npy")}
    assert left and len(left) < 6
    (tmp_path / "killed" / next(iter(contents(tmp_path / "killed"))).split("/")[0] / ".0.npy.x.part").touch()
    again, whole = start(tmp_path / "in", tmp_path / "killed", 0), start(tmp_path / "in", tmp_path / "whole", 0)
    assert again.communicate()[0] and whole.communicate()[0] == "6 0\n"
    expected = contents(tmp_path / "whole")
    got = contents(tmp_path / "killed")
    assert {name: data for name, data in got.items() if not name.endswith(".part")} == expected


def test_two_workers_share_a_store(tmp_path, write_video, gray_steps):
    (tmp_path / "in").mkdir()
    for number in range(8):
        write_video(tmp_path / "in" / f"{number}.mp4", gray_steps(20))
    workers = [start(tmp_path / "in", tmp_path / "out", 0.05) for _ in range(2)]
    counts = [list(map(int, worker.communicate()[0].split())) for worker in workers]
    assert sum(done for done, _ in counts) == 8
    assert all(done + present == 8 for done, present in counts)
    assert not list(tmp_path.rglob("*.claim"))


def test_shards_together_make_the_store(tmp_path, write_video, gray_steps, brightness_towers):
    for number in range(5):
        write_video(tmp_path / f"{number}.mp4", gray_steps(18))
    extractor, files = Extractor(SMALL, brightness_towers, CPU), list_videos(tmp_path)
    for index in range(3):
        extractor.run([file for file in files if in_shard(file.id, (index, 3))], tmp_path / "parts")
    extractor.run(files, tmp_path / "whole")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_real_networks_give_a_video_the_same_bits_alone_and_among_others(tmp_path, write_video):
    generator = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number, count in enumerate((50, 37, 90)):
        frames = generator.integers(0, 256, (count, 40, 48, 3), np.uint8)
        write_video(tmp_path / "in" / f"{number}.mp4", frames)
    torch.manual_seed(0)
    model = I3D(3, 4, 0.125).eval()
    settings = ExtractionSettings(
        streams=("rgb",), short_side=32, crop=None, batch_snippets=2, precision="fp32", device="cpu"
    )
    towers = {"rgb": Tower(_i3d_runner(model, settings, CPU, "fp32", ""), model.feature_dim, {"architecture": "i3d"})}
    extractor = Extractor(settings, towers, CPU)
    extractor.run(list_videos(tmp_path / "in"), tmp_path / "all")
    extractor.run(list_videos(tmp_path / "in" / "1.mp4"), tmp_path / "alone")
    everything = contents(tmp_path / "all")
    assert all(everything[name] == data for name, data in contents(tmp_path / "alone").items())


def test_a_network_that_refuses_an_input_fails_that_video_only(tmp_path, write_video, gray_steps):
    (tmp_path / "in").mkdir()
    for name, start in (("a", 40), ("dark", 0), ("z", 120)):
        write_video(tmp_path / "in" / f"{name}.mp4", gray_steps(40, first=start, step=0))

    def run(inputs):
        if np.mean(inputs[0]) < 20:
            raise UserError("too dark for this network")
        return np.stack([[clip.mean()] for clip in inputs])

    settings = ExtractionSettings(streams=("rgb",), short_side=32, crop=None, batch_snippets=2, device="cpu")
    extractor = Extractor(settings, {"rgb": Tower(run, 1, {})}, CPU)
    summary = extractor.run(list_videos(tmp_path / "in"), tmp_path / "out")
    assert sorted(summary.done) == ["a", "z"]
    assert summary.failed == {"dark": "too dark for this network"}


class ScriptedDecoder:
    """Stands in for the decoding child; `scripts` holds what it says of each file name."""

    scripts = {}

    def __init__(self, settings, chunk_frames=32):
        pass

    def frames(self, path):
        for item in self.scripts[path.name]():
            if isinstance(item, Exception):
                raise item
            yield item

    def kill(self):
        pass

    close = kill


INFO = {"frames": 0, "duration": 1.0, "size": 0}


def test_a_restart_forgets_the_first_attempt(tmp_path, monkeypatch, brightness_towers):
    def script():
        yield "frames", np.full((20, 32, 32, 3), 200, np.uint8)
        yield "restart", "hangs"
        yield "frames", np.full((17, 32, 32, 3), 50, np.uint8)
        yield "done", dict(INFO)

    monkeypatch.setattr(pipeline, "DecodeProcess", ScriptedDecoder)
    monkeypatch.setattr(ScriptedDecoder, "scripts", {"a.mp4": script})
    (tmp_path / "a.mp4").touch()
    Extractor(SMALL, brightness_towers, CPU).run(list_videos(tmp_path / "a.mp4"), tmp_path / "out")
    streams = open_streams(tmp_path / "out")
    np.testing.assert_array_equal(streams["rgb"].read("a"), np.full((2, 16), 50))
    np.testing.assert_array_equal(streams["flow"].read("a"), np.full((2, 16), 128))


@pytest.mark.parametrize("at", ["flow", "networks", "decoding", "batch"])
def test_one_video_that_outgrows_memory_or_its_shape_leaves_the_others(tmp_path, monkeypatch, brightness_towers, at):
    def bad():
        yield "frames", np.zeros((20, 32, 32, 3), np.uint8)
        if at == "decoding":
            yield MemoryError()
        yield "frames", np.zeros((20, 48 if at == "flow" else 32, 32, 3), np.uint8)
        yield "done", dict(INFO)

    def good():
        yield "frames", np.full((17, 32, 32, 3), 50, np.uint8)
        yield "done", dict(INFO)

    def full(*arguments):
        raise MemoryError

    def run(inputs):
        return full() if inputs[0].mean() == 0 else brightness_towers["rgb"].run(inputs)

    monkeypatch.setattr(pipeline, "DecodeProcess", ScriptedDecoder)
    monkeypatch.setattr(ScriptedDecoder, "scripts", {"a.mp4": bad, "b.mp4": good})
    towers = {name: brightness_towers[name] for name in ("rgb", "flow")}
    if at == "networks":
        take = Assembly.push
        monkeypatch.setattr(Assembly, "push", lambda self, name, f: take(self, name, f) if f.any() else full())
    if at == "batch":
        towers["rgb"] = Tower(run, 16, {})
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    summary = Extractor(SMALL, towers, CPU).run(list_videos(tmp_path), tmp_path / "out")
    assert summary.done == ["b"] and list(summary.failed) == ["a"]


def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path, monkeypatch, brightness_towers):
    """Frames in flight, counted where they are made: an hour of video never has more than the queues hold."""
    import weakref

    alive, most = set(), 0

    def script():
        nonlocal most
        for _ in range(1000):
            chunk = np.zeros((90, 8, 8, 3), np.uint8)
            alive.add(key := id(chunk))
            weakref.finalize(chunk, alive.discard, key)
            most = max(most, len(alive))
            yield "frames", chunk
        yield "done", dict(INFO)

    monkeypatch.setattr(pipeline, "DecodeProcess", ScriptedDecoder)
    monkeypatch.setattr(ScriptedDecoder, "scripts", {"a.mp4": script})
    (tmp_path / "a.mp4").touch()
    towers = {name: brightness_towers[name] for name in ("rgb", "clip")}
    Extractor(SMALL, towers, CPU).run(list_videos(tmp_path / "a.mp4"), tmp_path / "out")
    assert open_streams(tmp_path / "out")["clip"].read("a").shape == (5625, 1)
    assert most <= 16


def test_an_error_in_a_network_stops_the_run_and_is_told(tmp_path, write_video, gray_steps):
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", gray_steps(20))

    def broken(inputs):
        raise RuntimeError("out of memory")

    settings = ExtractionSettings(streams=("rgb",), crop=None, short_side=None, device="cpu")
    with pytest.raises(RuntimeError, match="out of memory"):
        Extractor(settings, {"rgb": Tower(broken, 1, {})}, CPU).run(list_videos(tmp_path), tmp_path / "out")
    assert not list(tmp_path.rglob("*.claim"))


def test_a_store_that_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch, write_video, gray_steps):
    write_video(tmp_path / "a.mp4", gray_steps(20))
    files, settings = list_videos(tmp_path), replace(SMALL, streams=("rgb",))
    tower = Tower(lambda inputs: np.stack([[clip.mean()] for clip in inputs]), 1, {})
    extractor = Extractor(settings, {"rgb": tower}, CPU)
    (tmp_path / "file").touch()
    with pytest.raises(RunFailure, match="file.*cannot be used"):
        extractor.run(files, tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".work").touch()
    with pytest.raises(RunFailure, match=".work.*Not a directory"):
        extractor.run(files, tmp_path / "out")
    extractor.streams(tmp_path / "full")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailure, match=r"full/rgb-\w+/a.json: cannot be used \(No space left on device\)"):
        extractor.run(files, tmp_path / "full")
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.claim"))


def test_what_one_video_cannot_do_fails_that_video_only(tmp_path, write_video, gray_steps):
    write_video(tmp_path / "large.mp4", gray_steps(18, 64, 64))
    write_video(tmp_path / "small.mp4", gray_steps(18, 34, 64))
    settings = ExtractionSettings(streams=("rgb",), crop=48, short_side=None, device="cpu")
    tower = Tower(lambda inputs: np.stack([[clip.mean()] for clip in inputs]), 1, {})
    summary = Extractor(settings, {"rgb": tower}, CPU).run(list_videos(tmp_path), tmp_path / "out")
    assert summary.done == ["large"] and "smaller than the crop" in summary.failed["small"]
    nan = Tower(lambda inputs: np.full((len(inputs), 1), np.nan), 1, {"architecture": "nan"})
    summary = Extractor(settings, {"rgb": nan}, CPU).run(list_videos(tmp_path / "large.mp4"), tmp_path / "out")
    assert "NaN" in summary.failed["large"]


def test_a_video_that_another_worker_failed_meanwhile_is_not_tried_again(tmp_path, monkeypatch):
    def script():
        yield UnreadableVideo("tried twice")

    monkeypatch.setattr(pipeline, "DecodeProcess", ScriptedDecoder)
    monkeypatch.setattr(pipeline, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(ScriptedDecoder, "scripts", {"a.mp4": script})
    (tmp_path / "a.mp4").touch()
    other = Claims(tmp_path / "out")
    other.take("a")

    def fail_later():
        time.sleep(0.5)
        FailureLog(tmp_path / "out").record("a", tmp_path / "a.mp4", "tried by the other", 0)
        other.give_up("a")

    import threading

    thread = threading.Thread(target=fail_later)
    thread.start()
    tower = Tower(lambda inputs: np.zeros((len(inputs), 1)), 1, {})
    settings = ExtractionSettings(streams=("rgb",), device="cpu")
    summary = Extractor(settings, {"rgb": tower}, CPU).run(list_videos(tmp_path / "a.mp4"), tmp_path / "out")
    thread.join()
    other.close()
    assert summary.failed == {"a": "tried by the other"}
