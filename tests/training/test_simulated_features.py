"""tools/simulate_features.py: same seed same bits, and streams with the two defects that it promises."""

import subprocess
import sys

import numpy as np
import pytest

from feature_extraction.store.grid import TimeGrid
from wtal.datasets.annotations import AnnotationSet, Instance, VideoAnnotation, write_activitynet
from wtal.datasets.features import FeatureSet
from wtal.datasets.formats.by_name import read_annotations
from wtal.evaluation.frame_miou import rasterise

from ..places import ROOT

TOOL = ROOT / "tools" / "simulate_features.py"
CLASSES = ("Jump", "Throw", "Wave")


@pytest.fixture
def annotations(tmp_path):
    videos = {}
    for number in range(8):
        label = CLASSES[number % 3]
        instances = tuple(Instance(start, start + 12.8, label) for start in (19.2, 64.0))
        subset = "training" if number < 5 else "validation"
        videos[f"v{number}"] = VideoAnnotation(f"v{number}", subset, (label,), instances, 128.0)
    write_activitynet(tmp_path / "annotations.json", AnnotationSet(CLASSES, videos))
    return tmp_path / "annotations.json"


def simulate(annotations, out, *options):
    command = [sys.executable, str(TOOL), str(annotations), "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_streams_have_the_two_defects_and_same_seed_same_bits(annotations, tmp_path):
    for name in ("one", "two"):
        done = simulate(annotations, tmp_path / name)
        assert done.returncode == 0, done.stderr
    features, again = FeatureSet(tmp_path / "one/features"), FeatureSet(tmp_path / "two/features")
    assert features.dims == {"rgb": 1024, "flow": 1024, "clip": 512}
    with np.load(tmp_path / "one/text.npz", allow_pickle=False) as file:
        text_CD = file["embeddings"] / np.linalg.norm(file["embeddings"], axis=1, keepdims=True)
        assert tuple(file["names"]) == CLASSES
    known = read_annotations(tmp_path / "one/annotations.json", "activitynet")
    for video in known.videos.values():
        x = features.read(video.video_id)
        assert all(np.array_equal(x[name], again.read(video.video_id)[name]) for name in x)
        length, label = len(x["clip"]), CLASSES.index(video.labels[0])
        inside_T = rasterise(video.instances, TimeGrid(), length, CLASSES)[:, label]
        near_T = np.convolve(inside_T, np.ones(3), "same") > 0
        far_T = np.convolve(inside_T, np.ones(17), "same") == 0

        clip_TD = x["clip"].astype(np.float32)
        cosine_T = (clip_TD / np.linalg.norm(clip_TD, axis=1, keepdims=True)) @ text_CD[label]
        # CLIP sees the whole action, and its context more than what is far from it
        assert cosine_T[inside_T].min() > cosine_T[far_T].max()
        assert cosine_T[near_T & ~inside_T].mean() > cosine_T[far_T].mean() + 2 * cosine_T[far_T].std()

        # I3D: of an instance a part only, and not most of it, stands out against the video's background
        rgb_TD = x["rgb"].astype(np.float32)
        away_T = np.linalg.norm(rgb_TD - np.median(rgb_TD[far_T], axis=0), axis=1)
        strong = (away_T[inside_T] > (away_T.max() + np.median(away_T[far_T])) / 2).mean()
        assert 0.05 < strong < 0.6


def test_every_thins_each_subset_and_numbers_can_be_set(annotations, tmp_path):
    assert simulate(annotations, tmp_path / "half", "--every", "2", "--set", "noise=2").returncode == 0
    assert FeatureSet(tmp_path / "half/features").ids() == ["v0", "v2", "v4", "v5", "v7"]
    loud = FeatureSet(tmp_path / "half/features").read("v0")["clip"]
    assert simulate(annotations, tmp_path / "quiet", "--set", "noise=0").returncode == 0
    quiet = FeatureSet(tmp_path / "quiet/features").read("v0")["clip"]
    assert np.std(loud.astype(np.float32) - quiet.astype(np.float32)) == pytest.approx(2, rel=0.05)


def test_bad_input_is_named(annotations, tmp_path):
    for options, message in ((["--set", "nois=2"], "noise"), (["--every", "0"], "at least 1")):
        done = simulate(annotations, tmp_path / "bad", *options)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
