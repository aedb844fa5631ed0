"""Small random evaluations with all that can go wrong, and their translation to the project's types."""

import random

from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation

CLASSES = ("a", "b", "c", "d")


def random_case(seed):
    """Few distinct times and scores, so that ties, duplicates and zero-length segments are common."""
    rng = random.Random(seed)
    step = rng.choice([1.0, 0.5, 0.64, 0.1])

    def segment():
        start = rng.randint(0, 12)
        length = rng.choice([0, 1, 1, 2, 3, 4, 6, 10])
        return start * step, (start + length) * step

    labels = rng.sample(CLASSES, rng.randint(1, 4))
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
        found = [(*segment(), rng.choice(CLASSES), rng.choice(scores)) for _ in range(rng.randint(0, 12))]
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
