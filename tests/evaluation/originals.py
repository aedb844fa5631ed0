"""The original evaluators, written again from what they do, step by step and in their own order of steps.

They share nothing with the package: plain lists and numpy. Where an original leaves a tie to its sorting routine,
equal scores go by the video's name, then by place in the video's list.
"""

import numpy as np


def flatten(by_video):
    """Rows (video, start, end, label, ...) by the video's name, then by place in its list."""
    return [(name, *row) for name in sorted(by_video) for row in by_video[name]]


def activitynet_evaluator(truth, found, label, thresholds):
    """The official ActivityNet code (2016 on): AP of a class at each threshold.

    `truth`: {video: [(start, end, label)]}; `found`: {video: [(start, end, label, score)]}.
    """
    truth = [row for row in flatten(truth) if row[3] == label]
    found = [row for row in flatten(found) if row[3] == label]
    if not found:
        return [0.0] * len(thresholds)
    order = np.argsort([-row[4] for row in found], kind="stable")
    lock = -np.ones((len(thresholds), len(truth)))
    tp, fp = np.zeros((2, len(thresholds), len(found)))
    for rank, n in enumerate(order):
        video, start, end = found[n][:3]
        mine = [g for g, row in enumerate(truth) if row[0] == video]
        if not mine:
            fp[:, rank] = 1
            continue
        tiou = np.array([segment_iou(start, end, *truth[g][1:3]) for g in mine])
        by_overlap = tiou.argsort(kind="stable")[::-1]
        for t, threshold in enumerate(thresholds):
            for j in by_overlap:
                if tiou[j] < threshold:
                    fp[t, rank] = 1
                    break
                if lock[t, mine[j]] >= 0:
                    continue
                tp[t, rank] = 1
                lock[t, mine[j]] = rank
                break
            if not tp[t, rank] and not fp[t, rank]:
                fp[t, rank] = 1
    tp, fp = tp.cumsum(axis=1), fp.cumsum(axis=1)
    return [voc_ap(tp[t] / (tp[t] + fp[t]), tp[t] / len(truth)) for t in range(len(thresholds))]


def segment_iou(start, end, other_start, other_end):
    intersection = max(0.0, min(end, other_end) - max(start, other_start))
    union = (end - start) + (other_end - other_start) - intersection
    return intersection / union if union > 0 else 0.0


def voc_ap(precision, recall):
    """VOC's area: precision made to fall, summed where recall steps."""
    precision, recall = np.hstack([[0], precision, [0]]), np.hstack([[0], recall, [1]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.where(recall[1:] != recall[:-1])[0] + 1
    return np.sum((recall[steps] - recall[steps - 1]) * precision[steps])


def snippet_evaluator(truth, found, ambiguous, label, thresholds):
    """The CO2-Net family: times on the grid of 16 frames at 25 fps, what touches Ambiguous is dropped, then as
    ActivityNet."""

    def grid(row):
        return (int(np.round(row[0] * 25 / 16)), int(np.round(row[1] * 25 / 16)), *row[2:])

    kept = {}
    for name, rows in found.items():
        unsure = {t for row in map(grid, ambiguous.get(name, [])) for t in range(row[0], row[1])}
        kept[name] = [row for row in map(grid, rows) if not unsure.intersection(range(row[0], row[1]))]
    return activitynet_evaluator(
        {name: [grid(row) for row in rows] for name, rows in truth.items()}, kept, label, thresholds
    )


def thumos_evaluator(truth, found, ambiguous, label, threshold):
    """The challenge's Matlab code (TH14eventdetpr): video after video by sorted name, one stable sort at the end."""
    truth, found, ambiguous = flatten(truth), flatten(found), flatten(ambiguous)
    positives = sum(row[3] == label for row in truth)
    conf, flag = [], []
    for video in sorted({row[0] for row in truth + found}):
        gt = [row for row in truth if row[0] == video and row[3] == label]
        det = [row for row in found if row[0] == video and row[3] == label]
        det = [det[i] for i in np.argsort([-row[4] for row in det], kind="stable")]
        free = np.ones(len(det), dtype=bool)
        for row in gt:
            left = np.flatnonzero(free)
            overlap = [hull_overlap(row[1], row[2], *det[i][1:3]) for i in left]
            if len(left) and max(overlap) > threshold:
                free[left[int(np.argmax(overlap))]] = False
        for i, row in enumerate(det):
            unsure = sum(hull_overlap(a[1], a[2], row[1], row[2]) for a in ambiguous if a[0] == video)
            if not free[i] or unsure == 0:
                conf.append(row[4])
                flag.append(not free[i])
    right = np.array(flag, dtype=bool)[np.argsort(-np.array(conf), kind="stable")] if conf else np.zeros(0, bool)
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    return precision[right].sum() / positives


def hull_overlap(start, end, other_start, other_end):
    intersection = min(end, other_end) - max(start, other_start)
    return intersection / (max(end, other_end) - min(start, other_start)) if intersection > 0 else 0.0
