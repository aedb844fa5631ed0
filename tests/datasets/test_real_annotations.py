"""The real annotation files beside the checkout: they load, and their known disagreements are found."""

from collections import Counter

import pytest

from feature_extraction.store.grid import TimeGrid
from wtal.datasets.check import check_annotations, compare, facts
from wtal.datasets.formats.by_name import guess_format, read_annotations
from wtal.datasets.splits import without

from ..places import SHARED


def real(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no real data: {'/'.join(parts)} (set WTAL_SHARED_DATA)")
    return read_annotations(path, guess_format(path))


def count(annotations):
    videos, segments = Counter(), Counter()
    for video in annotations.videos.values():
        videos[video.subset] += 1
        segments[video.subset] += len(video.instances)
    return dict(videos), dict(segments)


@pytest.mark.parametrize(
    "parts, classes, videos, segments",
    [
        (
            ("annotations", "thumos14_npy"),
            20,
            dict(validation=200, test=212),
            dict(validation=3007, test=3358),
        ),
        (("annotations", "thumos14_json"), 20, dict(train=200, test=210), dict(train=3007, test=3311)),
        (
            ("annotations", "thumos14_txt"),
            20,
            dict(validation=200, test=213),
            dict(validation=3007, test=3358),
        ),
        (
            ("annotations", "activitynet12", "activity_net.v1-2.min-missing-removed.json"),
            100,
            dict(training=4441, validation=2198, testing=2268),
            dict(training=6588, validation=3281, testing=0),
        ),
        (
            ("annotations", "activitynet13"),
            200,
            dict(training=9649, validation=4728, testing=4851),
            dict(training=14859, validation=7293, testing=0),
        ),
        (
            ("videos", "ut_untrimmed", "annotations.json"),
            6,
            dict(training=30, validation=12),
            dict(training=87, validation=35),
        ),
        (("conformance", "autoloc_thumos14", "ground_truth.json"), 20, dict(test=210), None),
        (("conformance", "thumos14_hard", "ground_truth.json"), 20, dict(test=210), None),
        (
            ("conformance", "autoloc_activitynet12", "ground_truth.json"),
            100,
            dict(test=2304),
            dict(test=3457),
        ),
    ],
    ids=lambda value: "/".join(value) if isinstance(value, tuple) else "",
)
def test_real_files_load(parts, classes, videos, segments):
    annotations = real(*parts)
    assert len(annotations.classes) == classes
    got_videos, got_segments = count(annotations)
    assert got_videos == videos
    assert segments is None or got_segments == segments


def test_what_is_odd_in_the_npy_layout():
    annotations = real("annotations", "thumos14_npy")
    details = {finding.name: finding.details for finding in check_annotations(annotations, TimeGrid())}
    differ = details["labels_differ_from_segments"]
    train = {key[-7:]: text for key, text in differ.items() if "validation" in key}
    assert train == {
        "0000171": "lacks CricketShot",
        "0000173": "lacks CricketShot",
        "0000178": "lacks CricketShot",
        "0000183": "lacks CricketBowling",
        "0000316": "extra ThrowDiscus",
        "0000665": "lacks LongJump",
        "0000786": "lacks ThrowDiscus",
        "0000932": "lacks GolfSwing",
    }
    assert len(differ) == 28
    assert set(details["no_label"]) == {"video_test_0000270"}
    past = {key.removeprefix("video_") for key in details["segment_past_end"]}
    assert past == {
        "validation_0000364",
        "validation_0000856",
        "test_0000270",
        "test_0000814",
        "test_0001081",
    }
    assert "duplicate_segment" not in details
    assert details["doubled_class"] == {"CliffDiving": "all 360 segments in 26 videos are also Diving"}
    counts = facts(annotations, TimeGrid())
    assert (counts["test"].below_snippet, counts["test"].zero_after_rounding) == (65, 17)
    assert (counts["validation"].multi_label_videos, counts["validation"].multi_class_videos) == (21, 27)


def test_where_the_thumos_sources_disagree():
    npy, json = real("annotations", "thumos14_npy"), real("annotations", "thumos14_json")
    details = {finding.name: finding.details for finding in compare(npy, json)}
    assert set(details) == {
        "only_in_first",
        "labels_differ",
    }  # the segments are the same, and the class order
    assert set(details["only_in_first"]) == {"video_test_0000270", "video_test_0001496"}
    assert sum("validation" in key for key in details["labels_differ"]) == 8
    assert set(without(npy, "thumos14-210").videos) == set(json.videos)
    assert facts(json, TimeGrid())["test"].multi_class_videos == 34
    txt = real("annotations", "thumos14_txt")
    details = {finding.name: finding.details for finding in compare(npy, txt)}
    assert set(details) == {"only_in_second", "labels_differ"}
    assert set(details["only_in_second"]) == {"video_test_0001292"}
    assert set(without(txt, "thumos14-212").videos) == set(npy.videos)
