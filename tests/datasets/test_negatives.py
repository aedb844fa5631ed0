"""Negatives: videos of which somebody said that none of the classes happens in them."""

import json

import pytest

from feature_extraction.errors import UserError
from wtal.datasets.annotations import (
    AnnotationSet,
    Instance,
    VideoAnnotation,
    read_activitynet,
    with_known_segments,
    write_activitynet,
)
from wtal.datasets.formats.weak_labels import read_csv, read_jsonl, write_jsonl
from wtal.datasets.splits import require_labels
from wtal.runs.own_videos.table import read_label_table

POSITIVE = VideoAnnotation("a", "training", ("jump",), (Instance(1.0, 2.0, "jump"),))
NEGATIVE = VideoAnnotation("b", "training", (), negative=True)
UNKNOWN = VideoAnnotation("c", "training", ())


def of(*videos):
    return AnnotationSet(("jump",), {video.video_id: video for video in videos})


def test_they_are_written_and_read(tmp_path):
    known = of(POSITIVE, NEGATIVE, UNKNOWN)
    write_activitynet(tmp_path / "a.json", known)
    assert read_activitynet(tmp_path / "a.json") == known
    write_jsonl(tmp_path / "a.jsonl", known)
    assert {k: v.negative for k, v in read_jsonl(tmp_path / "a.jsonl").videos.items()} == {"a": 0, "b": 1, "c": 0}


@pytest.mark.parametrize("entry", [{"negative": True, "labels": ["jump"]}, {"negative": "yes"}, {"negative": 1}])
def test_a_negative_with_a_label_is_refused(tmp_path, entry):
    (tmp_path / "a.json").write_text(json.dumps({"database": {"v": {"subset": "x", "annotations": [], **entry}}}))
    with pytest.raises(UserError, match="video 'v' has negative"):
        read_activitynet(tmp_path / "a.json")


def test_training_takes_them_but_not_videos_of_which_nothing_is_known():
    require_labels(of(POSITIVE, NEGATIVE))
    with pytest.raises(UserError, match="1 training videos have no label: c"):
        require_labels(of(POSITIVE, NEGATIVE, UNKNOWN))
    with pytest.raises(UserError, match="every training video is a negative"):
        require_labels(of(NEGATIVE))


def test_they_are_measured_on_where_something_is_known():
    known = of(POSITIVE, NEGATIVE, UNKNOWN)
    assert set(with_known_segments(known, ["a", "b", "c", "elsewhere"]).videos) == {"a", "b"}
    assert not with_known_segments(known, ["b", "c"]).videos


def test_an_empty_cell_is_a_negative_only_for_who_asks(tmp_path):
    (tmp_path / "t.csv").write_text("video,label\na,jump\nb,\nd,\nd,jump\n")
    for asked in (False, True):
        found = read_csv(tmp_path / "t.csv", empty_is_negative=asked).videos
        assert {key: video.negative for key, video in found.items()} == {"a": False, "b": asked, "d": False}


def test_the_table_of_own_videos(tmp_path):
    rows = "video,label,group\na,Fight,g1\nb,fight,g1\nc,normal,\nd,,g2\n"
    (tmp_path / "t.csv").write_text(rows)
    table = read_label_table(tmp_path / "t.csv")
    assert table.groups == {"a": "g1", "b": "g1", "d": "g2"} and table.labels.videos["d"].negative
    assert len(table.notes) == 2 and "'Fight' (1 videos), 'fight' (1 videos)" in table.notes[0]
    assert "--negative 'normal'" in table.notes[1]
    table = read_label_table(tmp_path / "t.csv", ["normal"])
    assert table.labels.classes == ("Fight", "fight") and table.labels.videos["c"].negative
    with pytest.raises(UserError, match="--negative 'calm' is no label"):
        read_label_table(tmp_path / "t.csv", ["calm"])
    (tmp_path / "t.csv").write_text(rows + "c,fight,\n")
    with pytest.raises(UserError, match="'c' is labelled 'fight' and, as a negative, 'normal'"):
        read_label_table(tmp_path / "t.csv", ["normal"])
    (tmp_path / "t.csv").write_text(rows + "a,Fight,g2\n")
    with pytest.raises(UserError, match="line 6: video 'a' is in groups 'g1' and 'g2'"):
        read_label_table(tmp_path / "t.csv")
