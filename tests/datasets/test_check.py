"""`wtal check` and `wtal convert annotations`: every finding on a made-up case, and the commands' output."""

import json

import pytest

from feature_extraction.store.grid import TimeGrid
from wtal.commands.main import main
from wtal.datasets.annotations import (
    AnnotationSet,
    Instance,
    VideoAnnotation,
    read_activitynet,
    write_activitynet,
)
from wtal.datasets.check import check_annotations, compare, facts

from .makers import write_store, write_thumos_npy


def video(key, labels, *instances, subset="training", duration=10.0, ambiguous=()):
    return VideoAnnotation(key, subset, tuple(labels), tuple(Instance(*i) for i in instances), duration, ambiguous)


def annotated(*videos, classes=("a", "b")):
    return AnnotationSet(classes, {v.video_id: v for v in videos})


def found(findings):
    return {finding.name: finding.details for finding in findings}


def test_each_oddity_is_found_and_nothing_else():
    odd = annotated(
        video("fine", ["a"], (1, 3, "a"), (1, 4, "b"), (2, 3, "b"), duration=None),
        video("labels", ["a"], (1, 3, "b"), (5, 8, "b")),
        video("bare", [], ambiguous=((0.0, 1.0),)),
        video("late", ["a"], (8, 10.5, "a"), (1, 2, "a")),
        video("early", ["a"], (-1, 2, "a")),
        video("backwards", ["a"], (5, 3, "a")),
        video("twice", ["a"], (5, 7, "a"), (5, 7, "a")),
        video("short", ["a"], (6.4, 6.5, "a")),
        video("video_test_0000270", ["a"]),
        classes=("b", "a", "c"),
    )
    details = found(check_annotations(odd, TimeGrid()))
    assert details.pop("labels_differ_from_segments") == {"labels": "extra a, lacks b", "fine": "lacks b"}
    assert set(details.pop("no_label")) == {"bare"}
    assert details.pop("segment_past_end") == {"late": "1 of 2, up to 10.50 s of 10.00 s"}
    assert details.pop("starts_before_zero") == {"early": "a -1-2 s"}
    assert details.pop("no_length") == {"backwards": "a 5-3 s"}
    assert details.pop("duplicate_segment") == {"twice": "a 5-7 s"}
    assert details.pop("zero_after_rounding") == {"short": "a 6.4-6.5 s"}
    assert details.pop("class_without_video") == {"b": "index 0", "c": "index 2"}
    assert set(details.pop("class_order")) == {"b", "a"}
    assert set(details.pop("ambiguous_only")) == {"bare"}
    assert set(details.pop("known_exclusion")) == {"video_test_0000270"}
    assert not details


def test_a_class_that_always_comes_with_another_is_found():
    both = annotated(
        video("x", ["a", "b"], (1, 3, "a"), (1, 3, "b"), (5, 6, "b")),
        video("y", ["a", "b"], (2, 3, "a"), (2, 3, "b")),
    )
    assert found(check_annotations(both, TimeGrid())) == {
        "doubled_class": {"a": "all 2 segments in 2 videos are also b"}
    }


def test_comparison_of_two_sources():
    one = annotated(
        video("same", ["a"], (1, 2, "a")),
        video("gone", ["a"]),
        video("labels", ["a", "b"], (1, 2, "a")),
        video("times", ["a"], (1, 2, "a"), (3, 4, "a")),
        video("moved", ["a"], duration=10.0),
    )
    two = AnnotationSet(
        ("b", "a", "z"),
        {
            "same": video("same", ["a"], (1.0001, 2, "a"), subset="train"),
            "new": video("new", ["a"], subset="train"),
            "labels": video("labels", ["b"], (1, 2, "a"), subset="train"),
            "times": video("times", ["a"], (1, 2, "a"), (3, 5, "a"), subset="train"),
            "moved": video("moved", ["a"], subset="test", duration=12.0),
        },
    )
    assert found(compare(one, two)) == {
        "only_in_first": {"gone": "subset training, 0 segments"},
        "only_in_second": {"new": "subset train, 0 segments"},
        "class_list_differs": {"z": "second source only"},
        "class_index_differs": {"a": "0 and 1", "b": "1 and 0"},
        "subset_differs": {"moved": "training and test"},
        "labels_differ": {"labels": "extra a"},
        "segments_differ": {"times": "first only: a 3-4 s; second only: a 3-5 s"},
        "duration_differs": {"moved": "10.00 s and 12.00 s"},
    }
    assert compare(one, one) == []


def test_facts():
    counts = facts(
        annotated(
            video("x", ["a", "b"], (0, 0.5, "a"), (1, 4, "a"), duration=1800.0),
            video("y", ["a"], (6.4, 6.6, "a"), (1, 4, "b"), duration=None),
        ),
        TimeGrid(),
    )["training"]
    assert (counts.videos, counts.instances, counts.hours) == (2, 4, 0.5)
    assert (counts.multi_label_videos, counts.multi_class_videos) == (1, 1)
    assert (counts.below_snippet, counts.zero_after_rounding) == (2, 1)
    assert counts.median_seconds == pytest.approx(1.75)


THUMOS = {
    "v1": ("validation", 20.0, ["Diving"], [(1.0, 2.5, "Diving"), (3.0, 4.0, "CliffDiving")]),
    "v2": ("test", 30.0, ["CliffDiving"], [(5.0, 6.0, "CliffDiving")]),
}


def test_command(tmp_path, capsys):
    folder = write_thumos_npy(tmp_path / "annotations", THUMOS)
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "1 videos whose labels are not the classes of their segments  [labels_differ_from_segments]" in out
    assert "v1: lacks CliffDiving" in out
    assert main(["check", str(folder), "--strict", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["subsets"]["test"]["videos"] == 1
    assert [f["name"] for f in report["findings"]["annotations"]] == ["labels_differ_from_segments"]
    assert main(["check", str(folder), "--subset", "test", "--strict"]) == 3  # Diving has no video then
    assert main(["check", str(folder), "--subset", "train"]) == 2
    assert "the subsets are: test, validation" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none")]) == 2


def test_command_with_features_and_configuration(tmp_path, capsys, monkeypatch):
    folder = write_thumos_npy(tmp_path / "annotations", THUMOS)
    store = write_store(tmp_path / "store", {"v1": 31, "v2": 40})
    assert main(["check", str(folder), "--features", str(store)]) == 0
    assert "v2: features cover 25.60 s, annotated are 30.00 s" in capsys.readouterr().out
    store = write_store(tmp_path / "other", {"v1": 31})
    assert main(["check", str(folder), "--features", str(store)]) == 3
    assert "v2: subset test" in capsys.readouterr().out
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data:\n  annotations: {folder}\n  format: thumos-npy\n  features: {store}\n  streams: [rgb]\n"
        "  train_subset: [validation]\n  test_subset: [test]\n"
    )
    assert main(["check", str(config)]) == 3
    assert "[missing_features]" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main(["check", "thumos14"]) == 2  # the shipped configuration, whose files are not here
    assert "data/thumos14/Thumos14reduced-Annotations: no such" in capsys.readouterr().err


def test_convert_annotations(tmp_path, capsys):
    folder = write_thumos_npy(tmp_path / "annotations", THUMOS)
    assert main(["convert", "annotations", str(folder), str(tmp_path / "a.json"), "--subset", "test"]) == 0
    assert list(read_activitynet(tmp_path / "a.json").videos) == ["v2"]
    assert "1 videos, 2 classes, 1 segments, from thumos-npy" in capsys.readouterr().out
    assert main(["convert", "annotations", str(folder), str(tmp_path / "a.csv")]) == 0
    assert "3 segments are left out" in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == "v1,Diving,validation,20.0"
    assert main(["convert", "annotations", str(folder), str(tmp_path / "a.xml")]) == 2
    assert "use .json, .csv, .jsonl" in capsys.readouterr().err
    write_activitynet(tmp_path / "b.json", annotated(video("v", ["a;b"]), classes=("a;b",)))
    assert main(["convert", "annotations", str(tmp_path / "b.json"), str(tmp_path / "b.csv")]) == 2
    assert "write jsonl instead" in capsys.readouterr().err
