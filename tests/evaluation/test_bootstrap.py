"""Intervals over videos: a draw with weights must equal an evaluation of videos that really stand there
twice.
"""

import numpy as np
import pytest

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation
from wtal.evaluation import bootstrap
from wtal.evaluation.bootstrap import BootstrapSettings, bootstrap_map, compare, draw_weights, resampled_map
from wtal.evaluation.detection.protocols import PROTOCOLS, assign, detection_map

TIOU = (0.3, 0.5, 0.7)


def world(seed=0, videos=12, good=0.6):
    """Distinct scores throughout, so that copies of a detection are the only ties."""
    rng = np.random.default_rng(seed)
    annotations, predictions = {}, {}
    for v in range(videos):
        starts = np.arange(rng.integers(1, 5)) * 10.0
        instances = tuple(Instance(s, s + rng.uniform(2, 6), "abc"[rng.integers(3)]) for s in starts.tolist())
        found = []
        for i in [*instances, *instances]:
            start = i.start + rng.normal(0, 0.5) if rng.random() < good else rng.uniform(0, 40)
            found.append(Detection(start, start + i.end - i.start, i.label, rng.random()))
        annotations[f"v{v}"] = VideoAnnotation(
            f"v{v}", "test", (), instances, 50.0, ((3.0, 6.0),) if v % 3 == 0 else ()
        )
        predictions[f"v{v}"] = found
    return AnnotationSet(("a", "b", "c"), annotations), predictions


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("block_values", [1, 1 << 22])
def test_a_weight_is_a_copy_of_the_video(protocol, block_values, monkeypatch):
    monkeypatch.setattr(bootstrap, "BLOCK_VALUES", block_values)
    truth, found = world()
    assignment = assign(truth, found, protocol, TIOU)
    weights = draw_weights(12, BootstrapSettings(resamples=20, seed=3))
    assert weights.max() >= 3 and (weights.sum(axis=1) == 12).all()
    mAP_RK = resampled_map(assignment, PROTOCOLS[protocol], weights)
    for weight_V, mAP_K in zip(weights, mAP_RK, strict=True):
        copied = {
            f"{name} copy {copy}": (video, found[name])
            for (name, video), weight in zip(truth.videos.items(), weight_V, strict=True)
            for copy in range(weight)
        }
        videos = AnnotationSet(truth.classes, {name: video for name, (video, _) in copied.items()})
        videos = AnnotationSet(
            truth.classes,
            {
                name: VideoAnnotation(name, "test", (), v.instances, 50.0, v.ambiguous)
                for name, v in videos.videos.items()
            },
        )
        expected = detection_map(videos, {name: d for name, (_, d) in copied.items()}, protocol, TIOU)
        assert mAP_K.tolist() == pytest.approx(expected.mAP, abs=1e-12)


def test_interval_holds_the_value_and_is_reproducible():
    truth, found = world(videos=40)
    settings = BootstrapSettings(resamples=300, seed=1)
    one, two = (bootstrap_map(truth, found, "activitynet", TIOU, settings) for _ in range(2))
    assert one.as_dict() == two.as_dict()
    for interval in (*one.mAP, one.average_mAP):
        assert interval.low < interval.value < interval.high
    wider = bootstrap_map(truth, found, "activitynet", TIOU, BootstrapSettings(300, 0.99, 1))
    assert wider.average_mAP.high > one.average_mAP.high


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Many data sets from one source: the mAP of a very large one lies in most of their 90 % intervals."""
    settings = BootstrapSettings(resamples=100, confidence=0.9)
    truth, found = world(seed=999, videos=3000)
    value = detection_map(truth, found, "activitynet", (0.5,)).average_mAP
    inside = 0
    for seed in range(60):
        interval = bootstrap_map(*world(seed, videos=60), "activitynet", (0.5,), settings).average_mAP
        inside += interval.low <= value <= interval.high
    # percentile intervals hold it in 35: they sit as much too high again as the mAP of 60 videos does
    assert 46 <= inside <= 59


def test_comparison_is_paired():
    truth, found = world(videos=40)
    same = compare(truth, found, found, "activitynet", TIOU)
    assert same.average_difference.as_dict() == {"value": 0.0, "low": 0.0, "high": 0.0, "bias": 0.0}
    assert same.p_value == 1.0
    # a small loss in every video: unpaired intervals overlap, the paired one excludes 0
    worse = {name: [*d, Detection(45.0, 46.0, d[0].label, 0.6 + d[0].score / 1e6)] for name, d in found.items()}
    result = compare(truth, found, worse, "activitynet", TIOU)
    assert result.second.average_mAP.high > result.first.average_mAP.low
    assert result.average_difference.high < 0
    assert result.p_value < 0.01
    assert result.average_difference.value == pytest.approx(
        result.second.average_mAP.value - result.first.average_mAP.value
    )


def test_comparison_with_a_video_that_only_one_side_knows():
    truth, found = world()
    more = found | {"nowhere": [Detection(0.0, 1.0, "a", 2.0)]}
    result = compare(truth, found, more, "activitynet", TIOU)
    assert result.second.result.mAP == detection_map(truth, more, "activitynet", TIOU).mAP
    assert result.average_difference.value < 0


@pytest.mark.parametrize("bad", [{"resamples": 1}, {"confidence": 1.0}, {"seed": -1}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(UserError, match=str(next(iter(bad.values())))):
        BootstrapSettings(**bad)
