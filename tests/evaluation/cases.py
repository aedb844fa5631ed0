"""Small random evaluations with all that can go wrong, and their translation to the project's types."""

import random

from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation

CLASSES = ("a", "b", "c", "d", "CliffDiving", "Diving")


def random_case(seed):
    """Few distinct times and scores, so that ties, duplicates and zero-length segments are common."""
    rng = random.Random(seed)
    step = rng.choice([1.0, 0.5, 0.64, 0.1])

    def segment():
        start = rng.randint(0, 12)
        length = rng.choice([0, 1, 1, 2, 3, 4, 6, 10])
        return start * step, (start + length) * step

    labels = rng.sample(CLASSES[:4], rng.randint(1, 4))
    videos = {}
    for index in range(rng.randint(1, 4)):
        instances = [(*segment(), rng.choice(labels)) for _ in range(rng.randint(0, 6))]
        if instances and rng.random() < 0.3:
            instances.append(rng.choice(instances))
        videos[f"v{index}"] = (instances, [segment() for _ in range(rng.choice([0, 0, 1, 2]))])
    videos["always"] = ([(*segment(), labels[0])], [])
    scores = [rng.random() for _ in range(rng.choice([2, 4, 50]))]
    predictions = {}
    names = [*videos, "nowhere"]
    rng.shuffle(names)
    for name in names[: rng.randint(0, len(names))]:
        found = [(*segment(), rng.choice(CLASSES[:4]), rng.choice(scores)) for _ in range(rng.randint(0, 12))]
        if found and rng.random() < 0.4:
            found.append(rng.choice(found))
        if found and rng.random() < 0.1:
            start, end, label, score = found[0]
            found[0] = (end, start, label, score)
        predictions[name] = found
    return videos, predictions


def typed(videos, predictions):
    """The same case as an `AnnotationSet` and detections."""
    annotations = {
        name: VideoAnnotation(
            name,
            "test",
            tuple(dict.fromkeys(label for _, _, label in instances)),
            tuple(Instance(*instance) for instance in instances),
            ambiguous=tuple(ambiguous),
        )
        for name, (instances, ambiguous) in videos.items()
    }
    return AnnotationSet(CLASSES, annotations), {
        name: [Detection(*detection) for detection in found] for name, found in predictions.items()
    }


def tie_heavy_case(seed):
    """Two or three scores in all, times on a coarse grid, doubled ground truth (CliffDiving and Diving, and the
    same instance twice), neighbours of equal overlap, and videos in no order of their names."""
    rng = random.Random(seed)
    step = rng.choice([0.64, 1.0, 2.0])
    scores = rng.sample((0.25, 0.5, 0.75), rng.randint(2, 3))

    def segment():
        start = rng.randint(0, 8)
        return start * step, (start + rng.choice([1, 1, 2, 2, 3])) * step

    names = ["v10", "v9", "V1", "a", "z b", "v1"][: rng.randint(2, 6)]
    rng.shuffle(names)
    videos, predictions = {}, {}
    for name in names:
        instances = []
        for _ in range(rng.randint(0, 4)):
            start, end = segment()
            instances.append((start, end, "CliffDiving" if rng.random() < 0.5 else "Diving"))
            if instances[-1][2] == "CliffDiving":
                instances.append((start, end, "Diving"))
            if rng.random() < 0.3:
                instances.append(instances[-1])
            if rng.random() < 0.4:  # a detection of both has the same overlap with each
                instances.append((end, 2 * end - start, "Diving"))
        videos[name] = (instances, [segment()] if rng.random() < 0.3 else [])
        found = [
            (*segment(), rng.choice(("CliffDiving", "Diving")), rng.choice(scores)) for _ in range(rng.randint(0, 8))
        ]
        found += [(s, 2 * e - s, label, rng.choice(scores)) for s, e, label in instances if rng.random() < 0.3]
        predictions[name] = found
    videos[names[0]][0].append((0.0, 2 * step, "CliffDiving"))
    videos[names[0]][0].append((0.0, 2 * step, "Diving"))
    if rng.random() < 0.2:
        predictions["nowhere"] = [(0.0, 1.0, "Diving", scores[0])]
    order = list(predictions)
    rng.shuffle(order)
    return videos, {name: predictions[name] for name in order}
