"""The three protocols written straight from their definitions, one detection at a time: slow and plain."""

ACTIVITYNET, SNIPPET, OFFICIAL = "activitynet", "thumos-snippet", "thumos-official"


def mean_ap(videos, predictions, protocol, threshold):
    """`videos`: {id: ([(start, end, label)], [(start, end)] ambiguous)}; `predictions`: {id: [(start, end,
    label, score)]}.

    Returns ({class with ground truth: AP}, mean AP).
    """
    if protocol == SNIPPET:
        videos, predictions = snap(videos, predictions)
    classes = {label for instances, _ in videos.values() for _, _, label in instances}
    one_class = official_ap if protocol == OFFICIAL else activitynet_ap
    ap = {label: one_class(videos, predictions, label, threshold) for label in classes}
    return ap, sum(ap.values()) / len(ap)


def snap(videos, predictions):
    def grid(seconds):
        return round(seconds * 25 / 16)  # Python rounds halves to even

    videos = {
        name: (
            [(grid(s), grid(e), label) for s, e, label in instances],
            [(grid(s), grid(e)) for s, e in ambiguous],
        )
        for name, (instances, ambiguous) in videos.items()
    }
    kept = {}
    for name, found in predictions.items():
        unsure = set()
        for s, e in videos[name][1] if name in videos else []:
            unsure |= set(range(s, e))
        kept[name] = [
            (grid(s), grid(e), label, score)
            for s, e, label, score in found
            if not unsure & set(range(grid(s), grid(e)))
        ]
    return videos, kept


def tiou(a, b):
    intersection = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - intersection
    return intersection / union if union > 0 else 0.0


def hull_overlap(a, b):
    intersection = min(a[1], b[1]) - max(a[0], b[0])
    return intersection / (max(a[1], b[1]) - min(a[0], b[0])) if intersection > 0 else 0.0


def ranked(predictions, label):
    """All detections of a class by falling score; Python's sort keeps equal scores by name, then place."""
    found = [(name, d) for name, ds in sorted(predictions.items()) for d in ds if d[2] == label]
    return sorted(found, key=lambda item: -item[1][3])


def activitynet_ap(videos, predictions, label, threshold):
    truths = [(name, t) for name, (instances, _) in videos.items() for t in instances if t[2] == label]
    used = [False] * len(truths)
    right = []
    for name, detection in ranked(predictions, label):
        best, best_tiou = None, -1.0
        for index, (video, truth) in enumerate(truths):
            if video == name and not used[index] and tiou(detection, truth) >= best_tiou:  # the last of equals
                best, best_tiou = index, tiou(detection, truth)
        hit = best is not None and best_tiou >= threshold
        if hit:
            used[best] = True
        right.append(hit)
    precision = [sum(right[: i + 1]) / (i + 1) for i in range(len(right))]
    recall = [sum(right[: i + 1]) / len(truths) for i in range(len(right))]
    area, previous = 0.0, 0.0
    for i in range(len(right)):
        area += (recall[i] - previous) * max(precision[i:])
        previous = recall[i]
    return area


def official_ap(videos, predictions, label, threshold):
    positives = sum(t[2] == label for instances, _ in videos.values() for t in instances)
    verdicts = {}  # (video, position in file) -> True, False, or absent where ignored
    for name, found in predictions.items():
        mine = sorted(
            [(position, d) for position, d in enumerate(found) if d[2] == label], key=lambda item: -item[1][3]
        )
        instances, ambiguous = videos.get(name, ([], []))
        free = [True] * len(mine)
        for truth in [t for t in instances if t[2] == label]:
            best, best_overlap = None, -1.0
            for index, (_, detection) in enumerate(mine):
                if free[index] and hull_overlap(truth, detection) > best_overlap:
                    best, best_overlap = index, hull_overlap(truth, detection)
            if best is not None and best_overlap > threshold:
                free[best] = False
        for index, (position, detection) in enumerate(mine):
            if not free[index]:
                verdicts[name, position] = True
            elif not any(hull_overlap(detection, a) > 0 for a in ambiguous):
                verdicts[name, position] = False
    order = [
        (name, position)
        for name, found in sorted(predictions.items())
        for position, d in enumerate(found)
        if d[2] == label and (name, position) in verdicts
    ]
    order.sort(key=lambda key: -predictions[key[0]][key[1]][3])
    total, hits = 0.0, 0
    for rank, key in enumerate(order, start=1):
        if verdicts[key]:
            hits += 1
            total += hits / rank
    return total / positives
