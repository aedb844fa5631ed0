"""Sound event F1 against published values, brute-force matching and hand cases; label files; frames to
events."""

import itertools
import json

import numpy as np
import pytest

from feature_extraction.errors import UserError
from wtal.datasets.annotations import Detection, Instance
from wtal.datasets.formats.dcase import clip_id, merge, read_dcase, read_durations, read_events
from wtal.evaluation.sound_events import Counts, clip_f1, event_f1, segment_f1
from wtal.inference.sound_events import events_from_scores

from ..places import SHARED

SED = SHARED / "sed"
real_data = pytest.mark.skipif(not SED.is_dir(), reason="real data beside the checkout (sed) is not there")


@real_data
def test_published_system_on_desed():
    folder = SED / "desed_student"
    expected = json.loads((folder / "expected.json").read_text())
    reference = {k: v.instances for k, v in read_dcase(folder / "validation.tsv", "validation").videos.items()}
    estimate = read_events(folder / "predictions0.5.csv")
    event, segment = event_f1(reference, estimate), segment_f1(reference, estimate)
    assert round(100 * event.micro, 2) == expected["event_f1_micro"]
    assert round(100 * event.macro, 2) == expected["event_f1_macro"]
    assert round(100 * segment.micro, 2) == expected["segment_f1_micro"]
    assert round(100 * segment.macro, 2) == expected["segment_f1_macro"]


@real_data
def test_real_label_files_are_read_whole():
    weak = read_dcase(SED / "layouts" / "weak.tsv", "weak")
    assert len(weak.videos) == 1578 and len(weak.classes) == 10
    assert weak.videos["YKK227gPpRn4_30.000_40.000"].labels == ("Alarm_bell_ringing", "Speech")
    strong = read_dcase(SED / "layouts" / "validation.tsv", "validation")
    assert len(strong.videos) == 1168 and strong.classes == weak.classes
    assert len(read_durations(SED / "desed_student" / "validation_durations.tsv")) == 1168
    assert len(merge([weak, strong]).videos) == 1578 + 1168


def random_events(generator, count):
    starts = generator.uniform(0, 4, count)
    return [
        Instance(s, s + d, str(generator.integers(2)))
        for s, d in zip(starts, generator.uniform(0.1, 2, count), strict=True)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_matching_is_optimal(seed):
    generator = np.random.default_rng(seed)
    reference = {str(n): random_events(generator, generator.integers(0, 6)) for n in range(6)}
    estimate = {
        clip: [Instance(e.start + generator.normal(0, 0.15), e.end + generator.normal(0, 0.3), e.label) for e in events]
        + random_events(generator, 2)
        for clip, events in reference.items()
    }
    result = event_f1(reference, estimate)
    for label, counts in result.per_class.items():
        best = 0
        for clip in reference:
            ref = [e for e in reference[clip] if e.label == label]
            est = [e for e in estimate[clip] if e.label == label]

            def fits(r, e):
                allowed = max(0.2, 0.2 * (r.end - r.start))
                return abs(r.start - e.start) <= 0.2 and abs(r.end - e.end) <= allowed

            # every assignment of estimates (or nothing) to references
            slots = est + [None] * len(ref)
            best += max(
                sum(e is not None and fits(r, e) for r, e in zip(ref, order, strict=True))
                for order in itertools.permutations(slots, len(ref))
            )
        assert counts.true_positive == best
        assert counts.true_positive + counts.false_negative == sum(
            e.label == label for events in reference.values() for e in events
        )
        assert counts.true_positive + counts.false_positive == sum(
            e.label == label for events in estimate.values() for e in events
        )


def test_greedy_would_lose_a_pair():
    # the first estimate fits both references, the second only the first reference
    reference = {"a": [Instance(1.0, 2.0, "x"), Instance(1.2, 2.1, "x")]}
    estimate = {"a": [Instance(1.1, 2.05, "x"), Instance(0.9, 1.9, "x")]}
    assert event_f1(reference, estimate).per_class["x"] == Counts(2, 0, 0)


def test_collars():
    reference = {"a": [Instance(1.0, 6.0, "x")]}

    def found(start, end):
        return event_f1(reference, {"a": [Instance(start, end, "x")]}).micro == 1

    assert found(1.0, 7.0) and not found(1.0, 7.1)  # a fifth of 5 s
    assert found(0.8, 6.0) and not found(0.75, 6.0)
    assert event_f1({"a": [Instance(1.0, 1.5, "x")]}, {"a": [Instance(1.0, 1.71, "x")]}).micro == 0
    assert event_f1(reference, {"a": [Instance(1.0, 6.0, "y")]}).macro == 0
    assert event_f1(reference, {"b": [Instance(1.0, 6.0, "x")]}).macro == 0


def test_macro_and_micro_by_hand():
    reference = {"a": [Instance(0, 1, "x"), Instance(3, 4, "x")], "b": [Instance(0, 1, "y")]}
    estimate = {"a": [Instance(0, 1, "x"), Instance(0, 1, "z")], "b": [Instance(0, 1, "y")]}
    result = event_f1(reference, estimate)
    assert result.per_class == {"x": Counts(1, 0, 1), "y": Counts(1, 0, 0), "z": Counts(0, 1, 0)}
    assert result.macro == pytest.approx((2 / 3 + 1 + 0) / 3) and result.micro == pytest.approx(4 / 6)
    assert result.per_class["x"].precision == 1 and result.per_class["x"].recall == 0.5
    assert np.isnan(event_f1({}, {}).macro)


def test_segments_by_hand():
    reference = {"a": [Instance(0.5, 2.1, "x")]}  # cells 0 1 2
    estimate = {"a": [Instance(2.0, 4.0, "x")]}  # cells 2 3
    assert segment_f1(reference, estimate).per_class["x"] == Counts(1, 1, 2)
    assert segment_f1(reference, reference).macro == 1
    assert segment_f1(reference, estimate, segment=4.0).micro == 1


def test_clip_f1_by_hand():
    result = clip_f1({"a": ["x", "y"], "b": ["x"]}, {"a": ["x"], "b": ["x", "y"]})
    assert result.per_class == {"x": Counts(2, 0, 0), "y": Counts(0, 1, 1)}
    assert result.macro == 0.5


def test_frames_to_events():
    score = np.zeros((20, 2))
    score[4:10, 0] = 0.9
    score[6, 0] = 0.2  # a gap that the filter closes
    score[15, 0] = 0.8  # a spike that it drops
    score[18:, 1] = 0.7
    events = events_from_scores(score, ["x", "y"], 0.1, median_seconds=0.3, duration=1.95)
    assert events == [Detection(0.4, 1.0, "x", 0.9), Detection(pytest.approx(1.8), 1.95, "y", 0.7)]
    plain = events_from_scores(score, ["x", "y"], 0.1, median_seconds=0)
    assert [round(e.start, 6) for e in plain] == [0.4, 0.7, 1.5, 1.8]
    assert [e.label for e in events_from_scores(score, ["x", "y"], 0.1, active=np.array([False, True]))] == ["y"]
    assert len(events_from_scores(score, ["x", "y"], 0.1, median_seconds=[0, 0.3])) == 4
    assert events_from_scores(np.zeros((0, 2)), ["x", "y"], 0.1) == []
    with pytest.raises(UserError, match="3 classes"):
        events_from_scores(score, ["x", "y", "z"], 0.1)


def test_label_files(tmp_path):
    weak = tmp_path / "weak.tsv"
    weak.write_text("filename\tevent_labels\nY_1.000_2.000.wav\tDog,Speech\nb.flac\t\n")
    read = read_dcase(weak, "train")
    assert read.classes == ("Dog", "Speech") and list(read.videos) == ["Y_1.000_2.000", "b"]
    assert read.videos["b"].labels == () and read.videos["Y_1.000_2.000"].subset == "train"
    strong = tmp_path / "strong.tsv"
    strong.write_text("filename\tonset\toffset\tevent_label\nc.wav\t0.5\t1.5\tDog\nc.wav\t0.1\t2\tCat\nd.wav\t\t\t\n")
    read = read_dcase(strong, "test", {"c": 10.0})
    assert read.videos["c"].instances == (Instance(0.5, 1.5, "Dog"), Instance(0.1, 2.0, "Cat"))
    assert read.videos["c"].duration == 10.0 and read.videos["c"].labels == ("Dog", "Cat")
    assert read.videos["d"].instances == ()
    assert read_events(strong)["d"] == [] and read_events(strong)["c"][0] == Detection(0.5, 1.5, "Dog", 1.0)
    assert clip_id("folder/x.y.WAV") == "folder%2Fx.y" and clip_id("x.10.000") == "x.10.000"


@pytest.mark.parametrize(
    "text,message",
    [
        ("name\tlabel\n", "no column filename; the first line has: name, label"),
        ("filename\tevent_label\n", "no column onset"),
        ("filename\tonset\toffset\tevent_label\na.wav\tx\t1\tDog\n", "line 2"),
        ("filename\tonset\toffset\tevent_label\na.wav\t3\t1\tDog\n", "line 2"),
        ("filename\tonset\toffset\tevent_label\na.wav\t0\tinf\tDog\n", "line 2"),
        ("", "no column filename; the first line has: nothing"),
        ("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\tCat\n", "line 2: 'Cat' is in no column"),
    ],
)
def test_bad_label_files_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "labels.tsv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_dcase(path, "x")
    assert "labels.tsv" in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        read_dcase(tmp_path / "none.tsv", "x")


def test_merging_the_same_clip_twice_is_refused(tmp_path):
    path = tmp_path / "weak.tsv"
    path.write_text("filename\tevent_labels\na.wav\tDog\n")
    with pytest.raises(UserError, match="'a' is in two"):
        merge([read_dcase(path, "x"), read_dcase(path, "y")])
