"""Splits, exclusions and held-out videos."""

import pytest

from feature_extraction.errors import UserError
from wtal.config.data import DataSettings
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation
from wtal.datasets.splits import EXCLUSIONS, hold_out, split, without


def annotated(labels, subset="training"):
    videos = {f"v{i:03}": VideoAnnotation(f"v{i:03}", subset, tuple(own)) for i, own in enumerate(labels)}
    return AnnotationSet(("a", "b", "c"), videos)


def test_split_parts_are_disjoint_and_complete():
    training = annotated([["a"], ["b"], ["a", "c"], ["c"], ["b"], ["a"], ["b"], ["c"]])
    test = {"t": VideoAnnotation("t", "Validation", ())}
    everything = AnnotationSet(training.classes, training.videos | test)
    parts = split(everything, DataSettings(held_out=0.25))
    assert set(parts.test.videos) == {"t"}
    assert len(parts.held_out.videos) == 2
    assert not set(parts.held_out.videos) & set(parts.train.videos)
    assert set(parts.held_out.videos) | set(parts.train.videos) == set(training.videos)
    assert parts.train.classes == parts.held_out.classes == parts.test.classes == training.classes
    assert not split(everything, DataSettings()).held_out.videos


def test_hold_out_is_spread_over_classes_and_repeats_with_its_seed():
    training = annotated([["a"]] * 40 + [["b"]] * 20 + [["c"]] * 10)
    chosen = hold_out(training, 0.2, 0)
    counts = [sum(training.videos[v].labels == (name,) for v in chosen) for name in "abc"]
    assert counts == [8, 4, 2]
    backwards = AnnotationSet(training.classes, dict(reversed(training.videos.items())))
    assert hold_out(backwards, 0.2, 0) == chosen
    assert hold_out(training, 0.2, 1) != chosen


def test_hold_out_leaves_every_class_a_training_video():
    training = annotated([["a"], ["a", "b"], ["b", "c"], ["c"]])
    chosen = hold_out(training, 0.5, 3)
    kept = {label for key, video in training.videos.items() if key not in chosen for label in video.labels}
    assert kept == {"a", "b", "c"}
    assert hold_out(annotated([["a"], ["b"], ["c"]]), 0.5, 0) == set()


def test_training_videos_without_label_are_counted_and_named():
    everything = annotated([["a"], [], ["b"], []])
    with pytest.raises(UserError, match="2 training videos have no label: v001, v003"):
        split(everything, DataSettings(test_subset=("test",)))


def test_unknown_subset_names_the_known_ones():
    with pytest.raises(UserError, match="'validation' is in no annotation; the subsets are: training"):
        split(annotated([["a"]]), DataSettings())


def test_exclusions():
    ids = ["video_test_0000270", "video_test_0001292", "video_test_0001496", "video_test_0000004"]
    everything = AnnotationSet(("a",), {key: VideoAnnotation(key, "test", ("a",)) for key in ids})
    left = {name: len(without(everything, name).videos) for name in EXCLUSIONS}
    # Of the 213 videos these are the three in question and one more
    assert left == {"none": 4, "thumos14-213": 4, "thumos14-212": 3, "thumos14-211": 2, "thumos14-210": 1}
    with pytest.raises(UserError, match="'thumos14-209' is not one of none, thumos14-213"):
        without(everything, "thumos14-209")


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(held_out=0.6), r"held_out must be in \[0, 0.5\]"),
        (dict(streams=()), "streams is empty"),
        (dict(streams=("rgb", "rgb")), "'rgb' twice"),
        (dict(train_subset=("Test",), test_subset=("test",)), "both train_subset and test_subset"),
    ],
)
def test_bad_settings_are_named(change, said):
    with pytest.raises(UserError, match=said):
        DataSettings(**change)
