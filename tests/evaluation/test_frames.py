"""Results as pandas frames hold what the results say."""

import numpy as np
import pytest

from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation
from wtal.evaluation.bootstrap import BootstrapSettings, bootstrap_map, compare
from wtal.evaluation.classification import tagging_metrics, video_map
from wtal.evaluation.detection.protocols import PROTOCOLS, detection_map
from wtal.evaluation.diagnosis.diagnose import KINDS, diagnose
from wtal.evaluation.frame_miou import detection_frame_miou
from wtal.evaluation.proposals import average_recall
from wtal.evaluation.sound_events import event_f1

TIOU = (0.3, 0.5, 0.7)


def case():
    instances = (Instance(0, 10, "jump"), Instance(20, 30, "run"), Instance(40, 44, "run"))
    truth = AnnotationSet(
        ("jump", "run"),
        {
            "a": VideoAnnotation("a", "", ("jump", "run"), instances, 60.0),
            "b": VideoAnnotation("b", "", ("run",), instances[1:], 60.0),
        },
    )
    found = {
        "a": [Detection(1, 10, "jump", 0.9), Detection(21, 27, "run", 0.8), Detection(50, 55, "run", 0.7)],
        "b": [Detection(39, 44, "run", 0.6), Detection(0, 5, "jump", 0.95)],
    }
    return truth, found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_detection_frame(protocol):
    result = detection_map(*case(), protocol, TIOU)
    frame = result.to_frame()
    assert list(frame) == ["AP@0.3", "AP@0.5", "AP@0.7", "average", "instances"]
    assert frame.loc["run", "AP@0.5"] == result.ap_KC[1, result.classes.index("run")]
    assert frame.mean().tolist()[:4] == pytest.approx([*result.mAP, result.average_mAP])


def test_interval_frames():
    truth, found = case()
    settings = BootstrapSettings(50)
    one = bootstrap_map(truth, found, tiou=TIOU, settings=settings)
    assert list(one.to_frame().index) == [*TIOU, "mean"]
    assert one.to_frame().loc["mean", "low"] == one.average_mAP.low
    both = compare(truth, found, {"a": found["a"]}, tiou=TIOU, settings=settings)
    frame = both.to_frame()
    assert list(frame) == ["first", "second", "value", "low", "high", "bias"]
    assert (frame["second"] - frame["first"]).tolist() == pytest.approx(frame["value"].tolist())
    assert frame.attrs["p_value"] == both.p_value


def test_diagnosis_frames():
    diagnosis = diagnose(*case())
    frame = diagnosis.to_frame()
    assert tuple(frame.index) == KINDS and frame["share"].sum() == pytest.approx(1)
    assert np.isnan(frame.loc["true positive", "impact"])
    assert frame.loc["background", "impact"] == diagnosis.impact["background"]
    bins = diagnosis.bins_frame()
    assert bins.loc["length", "instances"].sum() == 5 and bins["missed"].dtype == float


def test_the_other_frames():
    truth, found = case()
    videos = video_map(truth, found)
    assert videos.to_frame()["AP"].mean() == pytest.approx(videos.mAP)
    tags = tagging_metrics(np.eye(3), np.eye(3))
    assert tags.to_frame().loc[0, "gap"] == tags.gap == 1
    recall = average_recall(truth, found)
    assert recall.to_frame()["average"].tolist() == pytest.approx(recall.average_recall_A.tolist())
    frames = detection_frame_miou(truth, found)
    assert frames.to_frame().loc[0, "fg_miou"] == frames.foreground
    f1 = event_f1({"a": truth.videos["a"].instances}, found)
    assert f1.to_frame().loc["jump", ["tp", "fp", "fn"]].tolist() == [0, 2, 1]
    assert np.isnan(event_f1({"a": [Instance(0, 1, "x")]}, {}).to_frame().loc["x", "precision"])
    assert event_f1({}, {}).to_frame().empty
