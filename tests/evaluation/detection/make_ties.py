"""Makes the conformance case `ties_and_doubles`: `python tests/evaluation/detection/make_ties.py`.

Six scores in all, times on the grid of the snippets, CliffDiving annotated again as Diving, some instances twice,
videos and keys in no order. The values are those of the ports in `originals.py`, which share nothing with the package.
"""

import gzip
import json
import random
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "conformance" / "ties_and_doubles"
TIOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
LABELS = ("CliffDiving", "Diving", "GolfSwing", "HighJump", "LongJump")
STEP = 0.64


def make(seed=14):
    """Instances, Ambiguous segments and detections by video."""
    rng = random.Random(seed)
    truth, ambiguous, found = {}, {}, {}
    names = [f"video_test_{number:07d}" for number in rng.sample(range(2000), 60)]
    for name in names:
        instances, detections = [], []
        for _ in range(rng.randint(1, 9)):
            start, length, label = rng.randint(0, 80), rng.choice((1, 2, 2, 3, 4, 8)), rng.choice(LABELS)
            instances.append((start, start + length, label))
            if label == "CliffDiving":
                instances.append((start, start + length, "Diving"))
            if rng.random() < 0.2:  # a neighbour that a detection between them overlaps as much
                instances.append((start + length, start + 2 * length, label))
            if rng.random() < 0.1:
                instances.append(instances[-1])
        for start, end, label in instances * 2:
            shift = rng.choice((-2, -1, -1, 0, 0, 1, 1, 2, (end - start) // 2))
            detections.append((start + shift, max(end + shift + rng.choice((-1, 0, 0, 1)), start + shift + 1), label))
        detections += [(s, s + rng.choice((1, 2, 5)), rng.choice(LABELS)) for s in rng.choices(range(80), k=6)]
        rng.shuffle(detections)
        truth[name] = [(s * STEP, e * STEP, label) for s, e, label in instances]
        ambiguous[name] = [(s * STEP, (s + 4) * STEP) for s in rng.choices(range(80), k=rng.choice((0, 0, 1, 2)))]
        found[name] = [(s * STEP, e * STEP, label, rng.randint(1, 6) / 8) for s, e, label in detections]
    order = list(found)
    rng.shuffle(order)
    return truth, ambiguous, {name: found[name] for name in order}


def expected(originals, truth, ambiguous, found):
    """AP of each class and mAP at each threshold, by protocol."""
    values = {
        "activitynet": {c: originals.activitynet_evaluator(truth, found, c, TIOU) for c in LABELS},
        "thumos-snippet": {c: originals.snippet_evaluator(truth, found, ambiguous, c, TIOU) for c in LABELS},
        "thumos-official": {
            c: [originals.thumos_evaluator(truth, found, ambiguous, c, threshold) for threshold in TIOU] for c in LABELS
        },
    }
    return {
        protocol: {
            "mAP": [float(sum(column) / len(LABELS)) for column in zip(*ap.values(), strict=True)],
            "AP": {label: list(map(float, row)) for label, row in ap.items()},
        }
        for protocol, ap in values.items()
    }


def write(originals, folder):
    """The three files of the case."""
    truth, ambiguous, found = make()
    database = {
        name: {
            "subset": "test",
            "annotations": [{"segment": [s, e], "label": label} for s, e, label in instances],
            "ambiguous": ambiguous[name],
        }
        for name, instances in truth.items()
    }
    results = {
        name: [{"segment": [s, e], "label": label, "score": score} for s, e, label, score in rows]
        for name, rows in found.items()
    }
    protocols = expected(originals, truth, ambiguous, found)
    record = {
        "source": "made by make_ties.py; values by the ports in tests/evaluation/originals.py",
        "tiou": TIOU,
        "mAP": protocols["activitynet"]["mAP"],
        "protocols": protocols,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("ground_truth", {"database": database}), ("predictions", {"results": results})):
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    (folder / "expected.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import originals

    write(originals, FOLDER)
