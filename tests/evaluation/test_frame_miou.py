"""Frame mIoU on masks worked out by hand, and instances on the snippet grid."""

import dataclasses
import math

import numpy as np
import pytest

from feature_extraction.errors import UserError
from feature_extraction.store.grid import TimeGrid
from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation
from wtal.evaluation.frame_miou import detection_frame_miou, frame_miou, rasterise


def column(text):
    """`"++.--?"`-like strings to a ternary `[T, 1]` column: + is 1, - is 0, ? is -1."""
    return np.array([{"+": 1, "-": 0, "?": -1}[c] for c in text], dtype=np.int8)[:, None]


def test_binary_by_hand():
    result = frame_miou({"v": column("++++--") == 1}, {"v": column("-++++-") == 1})
    assert result.foreground == pytest.approx(3 / 5)
    assert result.background == pytest.approx(1 / 3)
    assert (result.pairs, result.confident) == (1, 1.0)


def test_uncertain_counts_on_neither_side():
    result = frame_miou({"v": column("++++----") == 1}, {"v": column("++??--?+")})
    assert result.foreground == pytest.approx(2 / 5)
    assert result.background == pytest.approx(2 / 4)
    assert result.confident == pytest.approx(5 / 8)


def test_each_pair_weighs_the_same_and_absent_classes_do_not_count():
    short = np.array([[True, False], [False, False]])
    long = np.zeros((100, 2), dtype=bool)
    long[:50] = True
    wrong = long.copy()
    wrong[:, 1] = ~wrong[:, 1]
    result = frame_miou({"a": short, "b": long}, {"a": short, "b": wrong})
    assert result.pairs == 3
    assert result.foreground == pytest.approx(2 / 3)
    assert result.background == pytest.approx(2 / 3)


def test_labels_choose_the_pairs():
    truth, predicted = np.zeros((4, 2), dtype=bool), np.zeros((4, 2), dtype=bool)
    truth[0, 0] = predicted[0, 0] = predicted[1, 1] = True
    assert frame_miou({"v": truth}, {"v": predicted}).foreground == 1.0
    both = frame_miou({"v": truth}, {"v": predicted}, {"v": np.array([True, True])})
    assert (both.pairs, both.foreground) == (2, 0.5)


def test_nothing_to_measure_is_nan_and_null():
    result = frame_miou({"v": np.zeros((3, 2), dtype=bool)}, {"v": np.zeros((3, 2), dtype=bool)})
    assert math.isnan(result.foreground)
    assert result.as_dict()["fg_miou"] is None


@pytest.mark.parametrize("prediction", [{}, {"v": np.zeros((3, 1), dtype=bool)}])
def test_missing_video_or_shape_is_named(prediction):
    with pytest.raises(UserError, match="'v'"):
        frame_miou({"v": np.ones((2, 1), dtype=bool)}, prediction)


def test_rasterise_by_snippet_centres():
    """Centres of 0.64 s snippets: 0.32, 0.96, 1.60, 2.24, 2.88."""
    instances = [
        Instance(0.32, 1.6, "a"),
        Instance(2.0, 99.0, "b"),
        Instance(1.0, 1.5, "b"),
        Instance(0, 9, "z"),
    ]
    mask = rasterise(instances, TimeGrid(), 5, ("a", "b"))
    assert mask[:, 0].tolist() == [True, True, False, False, False]
    assert mask[:, 1].tolist() == [False, False, False, True, True]


def test_rasterise_against_every_centre():
    rng = np.random.default_rng(0)
    grid = TimeGrid(fps=12.5, window=8, stride=4)
    for _ in range(50):
        instances = [Instance(s, s + d, "a") for s, d in rng.uniform(0, 8, (3, 2)).tolist()]
        mask = rasterise(instances, grid, 40, ("a",))
        for t in range(40):
            centre = (t + 0.5) * 4 / 12.5
            assert mask[t, 0] == any(i.start <= centre < i.end for i in instances)


def test_detections_against_annotations():
    """10 snippets of 0.64 s; truth covers centres 0 to 4; detections 0 to 2 and, below the floor, all."""
    video = VideoAnnotation("v", "test", ("a",), (Instance(0.0, 3.2, "a"),), duration=6.4)
    silent = VideoAnnotation("w", "test", ("a",), (Instance(0.0, 3.2, "a"),), duration=6.4)
    annotations = AnnotationSet(("a",), {"v": video, "w": silent})
    found = {"v": [Detection(0.0, 1.92, "a", 0.9), Detection(0.0, 6.4, "a", 0.1)]}
    result = detection_frame_miou(annotations, found, lowest_score=0.5)
    assert result.foreground == pytest.approx((3 / 5 + 0) / 2)
    assert result.background == pytest.approx((5 / 7 + 5 / 10) / 2)
    assert detection_frame_miou(annotations, found).foreground == pytest.approx((5 / 10 + 0) / 2)


def dense_detection_miou(annotations, found):
    """The definition with a mask of every snippet."""
    grid, truth, prediction = TimeGrid(), {}, {}
    for name, video in annotations.videos.items():
        own = found.get(name, [])
        seconds = video.duration or max(s.end for s in (*video.instances, *own))
        length = max(1, math.ceil(grid.to_snippets(seconds) - 1e-9))
        centre = grid.to_seconds(np.arange(length) + 0.5)
        classes = sorted({i.label for i in video.instances})
        truth[name], prediction[name] = (
            np.array([[any(s.start <= t < s.end for s in side if s.label == c) for c in classes] for t in centre])
            for side in (video.instances, own)
        )
    labels = {name: np.ones(mask.shape[1], dtype=bool) for name, mask in truth.items()}
    return frame_miou(truth, prediction, labels)


def test_counted_spans_are_every_snippet():
    rng = np.random.default_rng(3)
    for _ in range(30):
        videos, found = {}, {}
        for v in range(3):
            # a third of the edges on snippet centres, where rounding could tell otherwise
            start = np.where(rng.random(6) < 0.3, (rng.integers(0, 30, 6) + 0.5) * 0.64, rng.uniform(0, 20, 6))
            rows = list(zip(start.tolist(), (start + rng.integers(-1, 9, 6) * 0.64).tolist(), "ababab", strict=True))
            instances = tuple(Instance(*row) for row in rows[:3])
            videos[f"v{v}"] = VideoAnnotation(f"v{v}", "", ("a", "b"), instances, None if v % 2 else 17.3)
            found[f"v{v}"] = [Detection(*row, 1.0) for row in rows[3:]]
        annotations = AnnotationSet(("a", "b"), videos)
        one, other = detection_frame_miou(annotations, found), dense_detection_miou(annotations, found)
        assert (one.foreground, one.background, one.pairs) == (other.foreground, other.background, other.pairs)


@pytest.mark.parametrize("seconds", [1e13, 1e300, 1.7e308])
def test_absurd_times_cost_no_memory(seconds):
    video = VideoAnnotation("v", "test", ("a",), (Instance(0.0, 6.4, "a"),))
    found = {"v": [Detection(0.0, seconds, "a", 0.9)]}
    result = detection_frame_miou(AnnotationSet(("a",), {"v": video}), found)
    assert 0 < result.foreground < 1e-11 and result.background == 0
    long = dataclasses.replace(video, duration=seconds)
    result = detection_frame_miou(AnnotationSet(("a",), {"v": long}), {"v": [Detection(0.0, 3.2, "a", 0.9)]})
    assert result.foreground == 0.5 and result.background == pytest.approx(1)


def test_a_duration_that_is_not_positive_is_unknown():
    video = VideoAnnotation("v", "test", ("a",), (Instance(0.0, 6.4, "a"),), -5.0)
    result = detection_frame_miou(AnnotationSet(("a",), {"v": video}), {"v": [Detection(0.0, 3.2, "a", 0.9)]})
    assert result.foreground == 0.5
