"""Tagging metrics against hand-worked values and a plain-loop version of the definitions."""

import numpy as np
import pytest

from feature_extraction.errors import UserError
from wtal.evaluation.classification import (
    average_precision_per_class,
    global_average_precision,
    hit_at_one,
    precision_at_equal_recall_rate,
    score_map,
    tagging_metrics,
)

HAND_SCORE = [[0.9, 0.2, 0.6], [0.3, 0.8, 0.7]]
HAND_LABEL = [[1, 1, 0], [0, 0, 1]]


def test_hand_worked_gap():
    # kept: .9 (hit), .8, .7 (hit), .6; precisions 1/1 and 2/3 over 3 positives
    assert global_average_precision(HAND_SCORE, HAND_LABEL, 2) == pytest.approx(5 / 9)


def test_hand_worked_hit_and_perr():
    assert hit_at_one(HAND_SCORE, HAND_LABEL) == 0.5
    # video 1: top 2 are classes 0 and 2, one right; video 2: top 1 is class 1, wrong
    assert precision_at_equal_recall_rate(HAND_SCORE, HAND_LABEL) == pytest.approx(0.25)


def plain_ap(pairs, positives):
    pairs = sorted(pairs, key=lambda pair: -pair[0])
    hits = total = 0
    for rank, (_, relevant) in enumerate(pairs, 1):
        if relevant:
            hits += 1
            total += hits / rank
    return total / positives


@pytest.mark.parametrize("seed", range(6))
def test_brute_force(seed):
    generator = np.random.default_rng(seed)
    videos, classes, k = (60, 50, 20) if seed % 2 else (40, 8, 20)
    score = generator.permutation(videos * classes).reshape(videos, classes) / (videos * classes)
    label = generator.random((videos, classes)) < 0.06
    label[0, 0] = True
    tops = [sorted(range(classes), key=lambda c, n=n: -score[n, c])[:k] for n in range(videos)]
    pooled = [(score[n, c], label[n, c]) for n in range(videos) for c in tops[n]]
    assert global_average_precision(score, label, k) == pytest.approx(plain_ap(pooled, label.sum()))
    all_ap, top_ap = [], []
    for c in range(classes):
        if label[:, c].any():
            positives = label[:, c].sum()
            all_ap.append(plain_ap([(score[n, c], label[n, c]) for n in range(videos)], positives))
            kept = [(score[n, c], label[n, c]) for n in range(videos) if c in tops[n]]
            top_ap.append(plain_ap(kept, positives))
        else:
            assert np.isnan(average_precision_per_class(score, label)[c])
    assert score_map(score, label) == pytest.approx(np.mean(all_ap))
    assert score_map(score, label, k) == pytest.approx(np.mean(top_ap))
    hit = np.mean([label[n, tops[n][0]] for n in range(videos)])
    assert hit_at_one(score, label) == pytest.approx(hit)
    perr = []
    for n in range(videos):
        count = int(label[n].sum())
        best = sorted(range(classes), key=lambda c, n=n: -score[n, c])[:count]
        perr.append(sum(label[n, c] and score[n, c] > 0 for c in best) / count if count else 0)
    assert precision_at_equal_recall_rate(score, label) == pytest.approx(np.mean(perr))
    result = tagging_metrics(score, label, k).as_dict()
    assert result["gap"] == pytest.approx(plain_ap(pooled, label.sum())) and result["videos"] == videos


def test_perfect_and_worst_scores():
    label = np.eye(4)
    assert all(value == 1 for key, value in tagging_metrics(label, label, 1).as_dict().items() if key != "videos")
    worst = tagging_metrics(1 - label, label, 4)
    assert worst.hit_at_1 == worst.perr == 0 and worst.video_map == pytest.approx(1 / 4)


def test_ties_are_pessimistic_whatever_the_order_of_rows():
    score, label = np.ones((3, 4)), np.zeros((3, 4))
    label[:, 0] = 1
    assert hit_at_one(score, label) == 0
    # 12 pairs, the 3 positives last: (1/10 + 2/11 + 3/12) / 3
    assert global_average_precision(score, label) == pytest.approx((1 / 10 + 2 / 11 + 3 / 12) / 3)
    assert score_map(score[:, ::-1], label[:, ::-1]) == score_map(score, label)


def test_positives_outside_the_kept_classes_count_as_missed():
    assert global_average_precision([[0.9, 0.8]], [[0, 1]], 1) == 0
    assert global_average_precision([[0.9, 0.8]], [[1, 1]], 1) == 0.5


def test_bad_input():
    with pytest.raises(UserError, match="videos, classes"):
        hit_at_one([[1.0]], [[1, 0]])
    with pytest.raises(UserError, match="finite"):
        hit_at_one([[np.nan]], [[1]])
    with pytest.raises(UserError, match="no video has a label"):
        score_map([[0.4]], [[0]])
    with pytest.raises(UserError, match="top_k"):
        global_average_precision([[0.4]], [[1]], 0)
