"""Detections in the files that people have: of each kind a real-looking one, a wrong one and a half-right one."""

import gzip
import json
import pickle

import numpy as np
import pytest

from feature_extraction.errors import UserError
from wtal.commands.main import main
from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation, write_activitynet
from wtal.datasets.formats.predictions.by_name import LAYOUTS, read_detections
from wtal.datasets.formats.predictions.fields import THUMOS14_CLASSES, read_class_names

A, B = "video_test_0000004", "video_test_0000006"
FOUND = {
    A: [Detection(0.2, 1.1, "CricketBowling", 0.91), Detection(3.5, 7.25, "CricketShot", 0.125)],
    B: [Detection(10.0, 12.5, "CricketShot", 1e-05)],
}
ROWS = [(video, d.start, d.end, d.label, d.score) for video, found in FOUND.items() for d in found]
ENTRIES = {
    v: [{"segment": [d.start, d.end], "label": d.label, "score": d.score} for d in ds] for v, ds in FOUND.items()
}


def table(header, separator, rows=ROWS, order=range(5)):
    lines = [separator.join(header)]
    lines += [separator.join(str(row[place]) for place in order) for row in rows]
    return "\n".join(lines) + "\n"


def records(names):
    return [dict(zip(names, row, strict=True)) for row in ROWS]


BARE = {
    video: [{"start": d.start, "end": d.end, "class": d.label, "confidence": d.score} for d in found]
    for video, found in FOUND.items()
}
TEXT = {
    "csv plain": ("csv", table(["video", "start", "end", "label", "score"], ",")),
    "tsv of actionformer": ("csv", table(["video-id", "t-start", "t-end", "label", "score"], "\t")),
    "csv with an index": ("csv", table(["", "Video Name", "Start (s)", "End_Time", "Class", "Conf"], ",",
                                       [(n, *row) for n, row in enumerate(ROWS)], range(6))),
    "csv by semicolon": ("csv", table(["label", "confidence", "onset", "offset", "filename"], ";",
                                      order=(3, 4, 1, 2, 0))),
    "csv with blank rows and quotes": ("csv", '\n"video_id","begin","end","action","prob"\n\n' + "\n\n".join(
        f'"{v}", {s},{e},"{c}",{p}' for v, s, e, c, p in ROWS) + "\n\n"),
    "csv with segments": ("csv", table(["video", "segment", "label", "score"], "\t",
                                       [(v, f"[{s}, {e}]", c, p) for v, s, e, c, p in ROWS], range(4))),
    "thumos txt": ("thumos-txt", "".join(f"{v} {s} {e} {c} {p}\n" for v, s, e, c, p in ROWS)),
    "thumos txt with numbers": ("thumos-txt", "".join(
        f"{v}\t{s}\t{e}\t{ {'CricketBowling': 23, 'CricketShot': 24}[c] }\t{p}\r\n" for v, s, e, c, p in ROWS)),
    "activitynet": ("activitynet", json.dumps({"version": "VERSION 1.3", "results": ENTRIES, "external_data": {}})),
    "activitynet with confidence and text": ("activitynet", json.dumps({"results": {
        video: [{"segment": [str(d.start), str(d.end)], "label": d.label, "confidence": str(d.score)} for d in found]
        for video, found in FOUND.items()}})),
    "bare json": ("json", json.dumps(BARE, indent=1)),
    "bare json of lists": ("json", json.dumps({
        video: [[d.start, d.end, d.label, d.score] for d in found] for video, found in FOUND.items()})),
    "records": ("records", json.dumps(records(["video_id", "t_start", "t_end", "label", "score"]))),
    "records with confidence": ("records", "\ufeff" + json.dumps(
        records(["vid", "start_time", "end_time", "class_name", "confidence"]))),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", TEXT)
def test_a_real_looking_file(kind, packed, tmp_path):
    layout, text = TEXT[kind]
    path = tmp_path / ("found.json.gz" if packed else "found")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    read = read_detections(path)
    assert read.detections == FOUND and read.layout == layout
    assert (read.note == "") == (layout == "activitynet")
    assert layout in read.note or not read.note
    named = read_detections(path, layout)
    assert named.detections == FOUND and named.note == ""


def arrays(**changes):
    video, start, end, label, score = map(list, zip(*ROWS, strict=True))
    values = {"video-id": video, "t-start": start, "t-end": end, "label": label, "score": score} | changes
    return {name: value if isinstance(value, np.ndarray) else np.array(value) for name, value in values.items()}


@pytest.mark.parametrize("indices", [False, True, "float"])
def test_arrays_of_actionformer(indices, tmp_path):
    label = [0, 1, 1] if indices else ROWS and [row[3] for row in ROWS]
    label = np.array(label, dtype=float) if indices == "float" else np.array(label)
    np.savez(tmp_path / "eval_results.npz", **arrays(label=label))
    (tmp_path / "classes.txt").write_text("CricketBowling\nCricketShot\n")
    read = read_detections(tmp_path / "eval_results.npz", None, tmp_path / "classes.txt" if indices else None)
    assert read.layout == "npz" and read.detections == FOUND and "video from 'video-id'" in read.note


def test_arrays_with_segments(tmp_path):
    values = arrays()
    segment = np.stack([values.pop("t-start"), values.pop("t-end")], axis=1)
    np.savez_compressed(tmp_path / "a.npz", segments=segment, **values)
    assert read_detections(tmp_path / "a.npz").detections == FOUND
    np.savez_compressed(tmp_path / "b.npz", segments=segment[:, :1], **values)
    with pytest.raises(UserError, match=r"\(3, 1\); expected \[N, 2\]"):
        read_detections(tmp_path / "b.npz")


WRONG = {
    # what is no file of detections
    "prose": b"Dear all,\n\nfind the results attached.\n",
    "labels": b"video,label\n",
    "ground truth": json.dumps({"database": {A: {"subset": "test", "annotations": []}}}).encode(),
    "other json": b'{"mAP": 0.3}',
    "json text": b'["a", "b"]',
    "image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "pickle": pickle.dumps({"video-id": [A]}),
    "truncated zip": b"PK\x03\x04 and then nothing",
    "truncated gzip": gzip.compress(TEXT["bare json"][1].encode())[:60],
    "truncated json": TEXT["bare json"][1][:100].encode(),
    "empty": b"",
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_one_line(kind, tmp_path):
    path = tmp_path / "found.json"
    path.write_bytes(WRONG[kind])
    with pytest.raises(UserError) as caught:
        read_detections(path)
    message = str(caught.value)
    assert "found.json" in message and "\n" not in message
    if kind in ("prose", "ground truth", "other json", "json text", "image", "empty"):
        assert all(name in message for name in LAYOUTS)
    if kind == "pickle":
        assert "np.savez" in message
    if kind == "labels":
        assert "no column of start" in message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_another_layout_is_refused(layout, tmp_path):
    other = TEXT["csv plain" if layout in ("activitynet", "json", "records", "npz") else "bare json"][1]
    (tmp_path / "found").write_text(other)
    with pytest.raises(UserError, match="found"):
        read_detections(tmp_path / "found", layout)


def changed(text, old, new):
    assert old in text
    return text.replace(old, new, 1)


HALF = {
    # kind of TEXT, what becomes what, what the message names
    "csv score": ("csv plain", "0.125", "high", (A, "line 3", "score is 'high'")),
    "csv time": ("tsv of actionformer", "7.25", "nan", (A, "line 3", "end is 'nan'")),
    "csv empty label": ("csv by semicolon", "CricketShot;1e-05", " ;1e-05", (B, "line 4", "label is empty")),
    "csv cell too many": ("csv plain", "0.125", "0,125", ("not a whole table", "quotes")),
    "csv no video": ("csv plain", f"{B},", ",", ("line 4", "no video")),
    "csv blank rows": ("csv with blank rows and quotes", "1e-05", "?", (B, "line 8", "score is '?'")),
    "csv segment": ("csv with segments", "[3.5, 7.25]", "[3.5]", (A, "line 3", "segment is '[3.5]'")),
    "csv column": ("csv plain", "score", "points", ("no column of score", "points")),
    "txt fields": ("thumos txt", " 0.125", "", ("line 2", "4 fields")),
    "txt score": ("thumos txt", "0.125", "x", (A, "line 2", "score is 'x'")),
    "txt class": ("thumos txt with numbers", "\t24\t", "\t25\t", (A, "line 2", "label is '25'", "7 BaseballPitch")),
    "activitynet score": ("activitynet", "0.125", "Infinity", (A, "entry 2", "score is inf")),
    "activitynet segment": ("activitynet", "[3.5, 7.25]", "[3.5, 7.25, 9]", (A, "entry 2", "segment is")),
    "activitynet flag": ("activitynet", "0.125", "true", (A, "entry 2", "score is True")),
    "activitynet null": ("activitynet", "[10.0, 12.5]", "null", (B, "entry 1", "segment is None")),
    "bare label": ("bare json", '"CricketShot"', '["CricketShot"]', (A, "entry 2", "label is ['CricketShot']")),
    "bare index": ("bare json", '"CricketShot"', "1", (A, "entry 2", "label is 1", "--classes")),
    "bare field": ("bare json", '"confidence"', '"points"', (A, "entry 1", "no score")),
    "bare list": ("bare json of lists", "[10.0, 12.5,", "[[10.0, 12.5],", (B, "entry 1")),
    "records video": ("records", f'"video_id": "{B}"', '"frame": 3', ("entry 3", "no video")),
    "records time": ("records with confidence", "12.5", '"12,5"', (B, "entry 3", "end is '12,5'")),
}  # fmt: skip


@pytest.mark.parametrize("case", HALF)
def test_a_half_right_file_is_named_by_video_entry_and_field(case, tmp_path):
    kind, old, new, parts = HALF[case]
    path = tmp_path / "found"
    path.write_text(changed(TEXT[kind][1], old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_detections(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": np.array([0.1, np.nan, 0.2])}, f"video '{A}', entry 2: score is nan"),
        ({"score": np.array([0.1, 0.2])}, "differ in shape"),
        ({"label": np.array([0, 1, 2])}, "entry 1: label is 0, the index of a class; name the class list"),
        ({"label": np.array([0.5, 1, 2])}, "entry 1: label is 0.5; expected a class name"),
        ({"video-id": np.array([A, A, B], dtype=object)}, r"np.array\(ids, dtype=str\)"),
    ],
)
def test_half_right_arrays(changes, message, tmp_path):
    np.savez(tmp_path / "found.npz", **arrays(**changes))
    with pytest.raises(UserError, match=message):
        read_detections(tmp_path / "found.npz")
    values = arrays()
    del values["t-start"]
    np.savez(tmp_path / "less.npz", **values)
    with pytest.raises(UserError, match="no array of start"):
        read_detections(tmp_path / "less.npz")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("detclasslist.txt", "".join(f"{index} {label}\n" for index, label in THUMOS14_CLASSES.items())),
        ("index.csv", "".join(f"{index},{label}\n" for index, label in THUMOS14_CLASSES.items())),
        ("index.json", json.dumps(THUMOS14_CLASSES)),
        ("names.json", json.dumps({label: index for index, label in THUMOS14_CLASSES.items()})),
    ],
)
def test_class_lists(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == THUMOS14_CLASSES


def test_class_lists_that_count_from_zero(tmp_path):
    names = sorted(THUMOS14_CLASSES.values())
    expected = dict(enumerate(names))
    (tmp_path / "a.txt").write_text("\n".join(names))
    (tmp_path / "a.json").write_text(json.dumps(names))
    np.save(tmp_path / "a.npy", np.array([name.encode() for name in names]))
    assert all(read_class_names(tmp_path / f"a.{suffix}") == expected for suffix in ("txt", "json", "npy"))
    for text, message in (("", "no class names"), ("run\nrun\n", "twice"), ("1 a\n1 b\n", "twice")):
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            read_class_names(tmp_path / "bad.txt")
    (tmp_path / "bad.json").write_text('{"a": "b"}')
    for path in (tmp_path / "bad.json", tmp_path / "none.txt"):
        with pytest.raises(UserError, match=path.name):
            read_class_names(path)


def test_classes_that_are_numbers_are_names_where_the_ground_truth_has_them(tmp_path):
    (tmp_path / "found.csv").write_text(table(["video", "start", "end", "label", "score"], ",", [(A, 0, 1, 24, 0.5)]))
    assert read_detections(tmp_path / "found.csv", known=("24",)).detections == {A: [Detection(0, 1, "24", 0.5)]}
    with pytest.raises(UserError, match="--classes"):
        read_detections(tmp_path / "found.csv", known=("CricketShot",))
    # in JSON text is a name, until a class list says otherwise
    (tmp_path / "found.json").write_text(json.dumps({A: [[0, 1, "24", 0.5]]}))
    assert read_detections(tmp_path / "found.json").detections == {A: [Detection(0, 1, "24", 0.5)]}
    (tmp_path / "list.txt").write_text("24 CricketShot\n")
    read = read_detections(tmp_path / "found.json", class_list=tmp_path / "list.txt")
    assert read.detections == {A: [Detection(0, 1, "CricketShot", 0.5)]}


def test_the_command_measures_every_kind_alike(tmp_path, capsys):
    instances = {v: tuple(Instance(d.start, d.end, d.label) for d in found) for v, found in FOUND.items()}
    videos = {v: VideoAnnotation(v, "test", (), found, 60.0) for v, found in instances.items()}
    write_activitynet(tmp_path / "truth.json", AnnotationSet(("CricketBowling", "CricketShot"), videos))
    for kind, (layout, text) in TEXT.items():
        (tmp_path / "found").write_text(text, encoding="utf-8")
        words = ["evaluate", str(tmp_path / "found"), str(tmp_path / "truth.json"), "--json", "--tiou", "1"]
        assert main(words) == 0, kind
        out = capsys.readouterr()
        assert json.loads(out.out)["mAP"] == [1.0] and (f"read as {layout}" in out.err) == (layout != "activitynet")
        assert main([*words, "--format", layout]) == 0
        assert capsys.readouterr().err == ""
