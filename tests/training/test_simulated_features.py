"""tools/simulate_features.py: a world's number gives its bits, and streams have the two defects that it promises."""

import importlib
import json
import subprocess
import sys
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from feature_extraction.store.grid import TimeGrid
from wtal.datasets.annotations import AnnotationSet, Instance, VideoAnnotation, write_activitynet
from wtal.datasets.features import FeatureSet
from wtal.datasets.formats.by_name import read_annotations
from wtal.evaluation.frame_miou import rasterise

from ..places import ROOT

TOOLS = ROOT / "tools"
CLASSES = ("Jump", "Throw", "Wave", "Kick")
# without noise and accidents, so that what is left is the process itself
QUIET = (
    *("i3d_video=0", "i3d_slow=0", "i3d_fast=0", "clip_video=0", "clip_slow=0", "clip_fast=0", "bursts=0"),
    *("hidden=0", "mistaken=0", "strange=0", "second_label=0", "scene=0.1", "context=0.5", "alike=0.1", "kin=0.1"),
    *("moment=0.6", "shared=0.2", "rest=0.05", "around=0", "core=0.25", "reach=2"),
)


@pytest.fixture
def process(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("simulated_worlds.process")


@pytest.fixture
def annotations(tmp_path):
    videos = {}
    for number in range(8):
        label = CLASSES[number % 4]
        instances = tuple(Instance(start, start + 12.8, label) for start in (19.2, 64.0))
        subset = "training" if number < 5 else "validation"
        videos[f"v{number}"] = VideoAnnotation(f"v{number}", subset, (label,), instances, 128.0)
    write_activitynet(tmp_path / "annotations.json", AnnotationSet(CLASSES, videos))
    return tmp_path / "annotations.json"


def simulate(annotations, out, *options):
    command = [sys.executable, str(TOOLS / "simulate_features.py"), str(annotations), "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def build_with(process, **changes):
    return replace(process.draw(0), **changes)


def test_every_number_of_every_world_is_in_its_range_and_worlds_differ(process):
    worlds = [asdict(process.draw(number)) for number in range(30)]
    assert set(process.RANGES) == {field.name for field in fields(process.Process)}
    for name, (low, high) in process.RANGES.items():
        values = [world[name] for world in worlds]
        assert low <= min(values) and max(values) <= high
        whole = name in ("venues", "motions")
        assert len(set(values)) > (1 if whole else 2) and type(values[0]) is (int if whole else float)
    assert process.draw(3) == process.draw(3)


def test_drift_has_unit_variance_and_the_memory_asked_for(process):
    noise_TL = process.slow_noise(np.random.default_rng(0), 4000, 8.0)
    assert noise_TL.std() == pytest.approx(1, abs=0.03)
    assert np.mean(noise_TL[8:] * noise_TL[:-8]) == pytest.approx(np.exp(-1), abs=0.03)


def test_a_second_label_is_a_run_of_instances_of_a_class_of_the_same_venue(process):
    world = process.make_world(0, build_with(process, second_label=1.0, venues=2), CLASSES)
    instances = tuple(Instance(10.0 * n, 10.0 * n + 4, "Jump") for n in range(6))
    video = VideoAnnotation("v", "training", ("Jump",), instances, 80.0)
    changed = process.relabelled(world, video, np.random.default_rng(0))
    first, second = changed.labels
    assert first == "Jump" and world.venue_C[CLASSES.index(second)] == world.venue_C[0]
    order = [instance.label for instance in changed.instances]
    assert order == sorted(order, key=changed.labels.index) and set(order) == {first, second}
    assert [(i.start, i.end) for i in changed.instances] == [(i.start, i.end) for i in instances]
    never = process.make_world(0, build_with(process, second_label=0.0), CLASSES)
    assert process.relabelled(never, video, np.random.default_rng(0)) is video


def test_streams_have_the_two_defects_and_a_number_gives_its_bits(annotations, tmp_path):
    for name in ("one", "two"):
        done = simulate(annotations, tmp_path / name, "--world", "3", "--set", *QUIET)
        assert done.returncode == 0, done.stderr
    features, again = FeatureSet(tmp_path / "one/features"), FeatureSet(tmp_path / "two/features")
    assert features.dims == {"rgb": 256, "flow": 256, "clip": 128}
    with np.load(tmp_path / "one/text.npz", allow_pickle=False) as file:
        text_CD = file["embeddings"] / np.linalg.norm(file["embeddings"], axis=1, keepdims=True)
        assert tuple(file["names"]) == CLASSES
    known = read_annotations(tmp_path / "one/annotations.json", "activitynet")
    for video in known.videos.values():
        x = features.read(video.video_id)
        assert all(np.array_equal(x[name], again.read(video.video_id)[name]) for name in x)
        length, label = len(x["clip"]), CLASSES.index(video.labels[0])
        inside_T = rasterise(video.instances, TimeGrid(), length, CLASSES)[:, label]
        near_T = (np.convolve(inside_T, np.ones(3), "same") > 0) & ~inside_T
        far_T = np.convolve(inside_T, np.ones(17), "same") == 0

        clip_TD = x["clip"].astype(np.float32)
        cosine_T = (clip_TD / np.linalg.norm(clip_TD, axis=1, keepdims=True)) @ text_CD[label]
        # CLIP sees the whole action, and its context more than what is far from it
        assert np.median(cosine_T[inside_T]) > np.median(cosine_T[near_T]) > np.quantile(cosine_T[far_T], 0.9)

        # I3D: of an instance a part only, and not most of it, stands out against the video's background
        rgb_TD = x["rgb"].astype(np.float32)
        away_T = np.linalg.norm(rgb_TD - np.median(rgb_TD[far_T], axis=0), axis=1)
        strong = (away_T[inside_T] > (away_T.max() + np.median(away_T[far_T])) / 2).mean()
        assert 0.1 < strong < 0.45


def test_subsets_classes_and_videos_are_thinned_and_numbers_can_be_set(annotations, tmp_path):
    assert simulate(annotations, tmp_path / "half", "--every", "2").returncode == 0
    assert FeatureSet(tmp_path / "half/features").ids() == ["v0", "v2", "v4", "v5", "v7"]
    some = simulate(annotations, tmp_path / "some", "--classes", "3", "--subsets", "training", "--clips", "2")
    assert some.returncode == 0
    assert len(some.stdout.split()) == 2 and (tmp_path / "some/text2.npz").is_file()
    assert json.loads((tmp_path / "some/annotations.json").read_text())["database"].keys() == {"v0", "v1", "v2", "v4"}
    streams = ("rgb", some.stdout.split()[1])
    assert FeatureSet(tmp_path / "some/features", streams).dims == {"rgb": 256, "clip": 160}
    assert simulate(annotations, tmp_path / "narrow", "--every", "8", "--narrow", "2").returncode == 0
    assert FeatureSet(tmp_path / "narrow/features").dims == {"rgb": 128, "flow": 128, "clip": 64}


def test_the_premise_is_a_table_of_both_branches(annotations, tmp_path):
    done = simulate(annotations, tmp_path / "w", "--premise", "training", "validation", "--steps", "4")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line]
    names = [" ".join(row[:-8]) for row in rows]
    assert names[-2:] == ["CBP after warm-up", "frozen CLIP"]
    assert all(0 <= float(value) <= 100 for row in rows[-2:] for value in row[-8:])


def test_bad_input_is_named(annotations, tmp_path):
    bad = (
        (["--set", "nois=2"], "nois"),
        (["--every", "0"], "at least 1"),
        (["--world", "-1"], "negative"),
        (["--narrow", "3"], "must be 1, 2, 4 or 8"),
        (["--subsets", "testing"], "testing"),
    )
    for options, message in bad:
        done = simulate(annotations, tmp_path / "bad", *options)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
