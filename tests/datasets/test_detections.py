"""Detections in arrays, and their file: what comes out is what went in, to the byte; memory is that of one video."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_extraction.errors import UserError
from feature_extraction.files import Items, Members, read_json, stream_json, write_json, write_sealed
from wtal.datasets import json_stream
from wtal.datasets.annotations import Detection
from wtal.datasets.detections import Detections, read_predictions, stream_predictions, write_predictions
from wtal.datasets.json_stream import Irregular, members

from ..fixtures.memory import peak

text = st.text(st.characters(codec="utf-8"), max_size=6)
time = st.floats(0, 1e6) | st.sampled_from([0.0, 1e-300, 0.1, 1e300])
found = st.dictionaries(
    text, st.lists(st.builds(Detection, time, time, text, st.floats(-1, 1)), max_size=4), max_size=6
)


def plain(detections, details):
    results = {
        video_id: [{"label": d.label, "segment": [d.start, d.end], "score": d.score} for d in own]
        for video_id, own in detections.items()
    }
    external = {"used": bool(details), "details": details}
    return {"external_data": external, "results": results, "version": "VERSION 1.3"}


@given(found, st.sampled_from(["", "wtal, row ours", "é"]))
@settings(max_examples=60, deadline=None)
def test_the_file_is_that_of_the_whole_object_and_comes_back(tmp_path_factory, detections, details):
    folder = tmp_path_factory.mktemp("found")
    write_predictions(folder / "parts.json", detections, details)
    write_sealed(folder / "whole.json", plain(detections, details))
    assert (folder / "parts.json").read_bytes() == (folder / "whole.json").read_bytes()
    assert read_json(folder / "parts.json") == plain(detections, details)
    back = read_predictions(folder / "parts.json")
    assert back == detections and list(back) == list(detections)
    # out of order the file is read whole, and the same comes out
    if list(detections) == sorted(detections):
        assert stream_predictions(folder / "parts.json", lambda _, own: []).keys() == detections.keys()


def test_a_file_of_an_earlier_version_or_another_program_is_read_whole(tmp_path):
    detections = {"b": [Detection(0.5, 1.0, "x", 0.25)], "a": []}
    content = plain(detections, "wtal")
    write_sealed(tmp_path / "earlier.json", {key: content[key] for key in ("version", "results", "external_data")})
    write_json(tmp_path / "bare.json", {"results": content["results"]}, indent=None)
    (tmp_path / "mark.json").write_bytes((tmp_path / "bare.json").read_bytes())
    for name in ("earlier", "bare", "mark"):
        with pytest.raises(Irregular):
            stream_predictions(tmp_path / f"{name}.json", lambda _, own: [])
        assert read_predictions(tmp_path / f"{name}.json") == detections


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_json_is_not_written(tmp_path, bad):
    for detection in (Detection(bad, 1.0, "a", 0.5), Detection(0.0, bad, "a", 0.5), Detection(0.0, 1.0, "a", bad)):
        with pytest.raises(ValueError, match="not numbers"):
            write_predictions(tmp_path / "p.json", {"v": [detection]})
    assert not list(tmp_path.iterdir())


def test_memory_of_reading_and_writing_is_28_bytes_a_detection(tmp_path):
    def many(count):
        own = [Detection(i / 7, i / 3, f"class {i % 5}", 1 / (i + 1)) for i in range(100)]
        return Detections((f"v{n:05}", own) for n in range(count))

    grown = {}
    for count in (150, 300):
        detections, path = many(count), tmp_path / f"{count}.json"
        grown[count] = (
            peak(lambda d=detections, p=path: write_predictions(p, d)),
            peak(lambda p=path: read_predictions(p)),
        )
    for one, two in zip(grown[150], grown[300], strict=True):
        # 15,000 detections more: whole they would be 6 MB as objects, and 2 MB as text
        assert two - one < 15_000 * 80, (one, two)


def test_a_video_can_be_left_out_renamed_and_said_again():
    one, two = Detection(0.0, 1.0, "a", 0.5), Detection(2.0, 3.0, "b", 0.25)
    detections = Detections([("x", [one]), ("y", [two, one]), ("x", [two])])
    assert detections == {"x": [two], "y": [two, one]} and repr(detections) == "Detections(3 in 2 videos)"
    assert detections.labels() == {"a", "b"} and len(detections.view("y")) == 2 and detections.view("y")[-1] == one
    part = detections.under({"x": "z"})
    assert part == {"z": [two]} and part.labels() == {"b"} and "x" not in part
    frame = detections.to_frame()
    assert frame["video"].tolist() == ["x", "y", "y"] and frame["label"].tolist() == ["b", "b", "a"]
    assert frame["score"].tolist() == [0.25, 0.25, 0.5] and Detections().to_frame().empty
    label_N, start_N, end_N, score_N = detections.columns(["y", "x"])
    assert [detections.names[i] for i in label_N] == ["b", "a", "b"]
    assert np.array_equal(start_N, [2, 0, 2]) and np.array_equal(end_N, [3, 1, 3]) and len(score_N) == 3


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(text, json_values, max_size=4), st.sampled_from([None, 1]), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_members_are_those_of_the_whole_object_however_it_is_cut(tmp_path_factory, content, indent, chunk):
    path = tmp_path_factory.mktemp("json") / "x.json"
    content = {"results": {"a": [1.5, {"b": "c"}], "d": 12}, **content}
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    before, json_stream.CHUNK = json_stream.CHUNK, chunk
    try:
        read = {key: dict(value) if hasattr(value, "__next__") else value for key, value in members(path, "results")}
    finally:
        json_stream.CHUNK = before
    assert read == content and list(read) == list(content)


@pytest.mark.parametrize(
    "broken",
    [b"", b"[]", b"{", b'{"a"', b'{"a": 1,}', b'{"a": 1 "b": 2}', b'{"a": 1} x', b"\xef\xbb\xbf{}", b'{"a": "\xff"}',
     b'{"a": "\\ud800"}', b'{"\\ud800": 1}', b"{1: 2}", b'{"a": tru', b'{"a": ' + b"[" * 100_000,
     b'{"a": ' + b"1" * 5000],
)  # fmt: skip
def test_anything_else_is_irregular(tmp_path, broken):
    (tmp_path / "x.json").write_bytes(broken)
    with pytest.raises(Irregular):
        list(members(tmp_path / "x.json", "results"))
    with pytest.raises(UserError):
        read_predictions(tmp_path / "x.json")


@given(st.lists(st.tuples(text, json_values), max_size=4, unique_by=lambda pair: pair[0]), json_values)
@settings(max_examples=80, deadline=None)
def test_a_stream_of_json_has_the_bytes_of_the_whole(tmp_path_factory, pairs, value):
    folder = tmp_path_factory.mktemp("json")
    for parts, whole in (
        (Items(iter([value, *dict(pairs).values()])), [value, *dict(pairs).values()]),
        (Members(iter(pairs)), dict(pairs)),
        (
            {"a": value, "b": {"c": Members(iter(pairs)), "d": Items(iter(()))}},
            {"a": value, "b": {"c": dict(pairs), "d": []}},
        ),
    ):  # fmt: skip
        stream_json(folder / "parts.json", parts)
        write_json(folder / "whole.json", whole)
        assert (folder / "parts.json").read_bytes() == (folder / "whole.json").read_bytes()
