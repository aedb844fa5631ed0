"""Video-level AP by hand and by brute force; average recall by the loops of the definition."""

import numpy as np
import pytest

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation
from wtal.evaluation.classification import classification_map, tagging_metrics, video_map
from wtal.evaluation.proposals import average_recall

from .brute_force import tiou


def test_classification_by_hand():
    """Class a: positives at ranks 1 and 3, AP (1 + 2/3) / 2. Class b: positive at rank 2. Class c: no
    positive.
    """
    score = np.array([[0.9, 0.1, 0.0], [0.8, 0.7, 0.0], [0.2, 0.6, 0.9]])
    label = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0]])
    result = classification_map(score, label, ("a", "b", "c"))
    assert result.classes == ("a", "b")
    assert result.ap_C.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])
    assert result.hit_at_1 == 0.5
    # one ranking, the negative first at .9: c2 .9, a0 .9 +, a1 .8, b1 .7, b2 .6 +, a2 .2 +
    assert result.gap == pytest.approx((1 / 2 + 2 / 5 + 3 / 6) / 3)


def test_gap_looks_at_the_top_classes_only():
    score, label = np.array([[0.9, 0.8, 0.7]]), np.array([[0, 0, 1]])
    assert classification_map(score, label, "abc", top=2).gap == 0.0
    assert classification_map(score, label, "abc", top=3).gap == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("score", "label", "message"),
    [
        (np.full((2, 1), np.nan), np.ones((2, 1)), "not numbers"),
        (np.zeros((2, 1)), np.zeros((2, 1)), "no video has a label"),
        (np.zeros((2, 2)), np.zeros((2, 1)), "do not fit"),
    ],
)
def test_bad_classification_input(score, label, message):
    with pytest.raises(UserError, match=message):
        classification_map(score, label, ("a",))


def test_video_score_is_the_best_detection():
    truth = AnnotationSet(
        ("a", "b"),
        {n: VideoAnnotation(n, "test", (label,)) for n, label in (("v", "a"), ("w", "b"), ("x", "a"))},
    )
    found = {
        "v": [Detection(0, 1, "a", 0.2), Detection(5, 6, "a", 0.9)],
        "w": [Detection(0, 1, "a", 0.5), Detection(0, 1, "unknown", 1.0)],
        "elsewhere": [Detection(0, 1, "a", 1.0)],
    }
    result = video_map(truth, found)
    # a: v .9 +, w .5; nothing says that x has a or w has b
    assert result.ap_C.tolist() == pytest.approx([1 / 2, 0.0])


def truth_of(labels):
    classes = tuple(sorted({name for own in labels.values() for name in own}))
    return AnnotationSet(classes, {v: VideoAnnotation(v, "test", tuple(own)) for v, own in labels.items()})


def test_what_was_not_detected_earns_nothing():
    result = video_map(truth_of({"v": "a", "w": "b"}), {})
    assert (result.mAP, result.hit_at_1, result.gap) == (0.0, 0.0, 0.0)
    # w's b is not found: half of the classes, of the videos and of the positives
    result = video_map(truth_of({"v": "a", "w": "b"}), {"v": [Detection(0, 1, "a", 0.1)]})
    assert (result.mAP, result.hit_at_1, result.gap) == (0.5, 0.5, 0.5)


def test_video_labels_do_not_hang_on_the_order_of_the_videos():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = {f"v{v}": rng.choice(list("abc"), rng.integers(1, 3), False).tolist() for v in range(6)}
        found = {
            v: [Detection(0, 1, str(c), float(s)) for c, s in zip("abc", rng.choice([0.2, 0.4], 3), strict=True)]
            for v in rng.choice(list(labels), 4, False).tolist()
        }
        one = video_map(truth_of(labels), found)
        other = video_map(truth_of(dict(reversed(labels.items()))), found)
        assert other.ap_C == pytest.approx(one.ap_C)
        assert (other.hit_at_1, other.gap) == pytest.approx((one.hit_at_1, one.gap))


def test_video_labels_are_those_of_the_tagging_metrics():
    rng = np.random.default_rng(1)
    for _ in range(20):
        score, label = rng.choice([0.1, 0.5, 0.9], (6, 4)), rng.random((6, 4)) < 0.4
        label[:, 0] |= ~label.any(axis=1)
        result, other = classification_map(score, label, "abcd", top=3), tagging_metrics(score, label, top_k=3)
        assert result.mAP == pytest.approx(other.video_map)
        assert result.hit_at_1 == pytest.approx(other.hit_at_1)
        assert result.gap == pytest.approx(other.gap)


def plain_average_recall(truth, found, thresholds, largest):
    """The definition, loop by loop."""
    videos = [v for v in truth.videos.values() if v.instances]
    total = sum(len(found.get(v.video_id, [])) for v in videos)
    recalls = []
    for n in range(1, largest + 1):
        per_threshold = []
        for threshold in thresholds:
            hits = count = 0
            for v in videos:
                mine = sorted(found.get(v.video_id, []), key=lambda d: -d.score)
                kept = mine[: n * len(videos) * len(mine) // total]
                for i in v.instances:
                    count += 1
                    hits += any(tiou((d.start, d.end), (i.start, i.end)) >= threshold for d in kept)
            per_threshold.append(hits / count)
        recalls.append(per_threshold)
    return np.array(recalls).T


def test_average_recall_by_brute_force():
    rng = np.random.default_rng(0)
    thresholds = (0.3, 0.5, 0.8)
    for _ in range(30):
        videos, found = {}, {}
        for v in range(4):
            instances = tuple(Instance(s, s + d, "ab"[v % 2]) for s, d in rng.uniform(1, 9, (v, 2)).tolist())
            videos[f"v{v}"] = VideoAnnotation(f"v{v}", "test", (), instances)
            # whatever label: classes are ignored
            found[f"v{v}"] = [
                Detection(s, s + d, "zz", p) for s, d, p in rng.uniform(1, 9, (rng.integers(1, 9), 3)).tolist()
            ]
        truth = AnnotationSet(("a", "b"), videos)
        result = average_recall(truth, found, thresholds, largest=10)
        np.testing.assert_array_equal(result.recall_KA, plain_average_recall(truth, found, thresholds, 10))
        assert result.at(10) == result.recall_KA[:, -1].mean()
        assert 0 <= result.auc <= 1


def test_perfect_proposals():
    instances = (Instance(0, 2, "a"), Instance(4, 6, "a"))
    truth = AnnotationSet(("a",), {"v": VideoAnnotation("v", "test", ("a",), instances)})
    result = average_recall(truth, {"v": [Detection(4, 6, "x", 0.9), Detection(0, 2, "x", 0.1)]})
    assert (result.at(1), result.at(2), result.at(100)) == (0.5, 1.0, 1.0)
    assert average_recall(truth, {}).auc == 0.0
