"""Speed and memory of detection mAP, against a plain loop over detections on the same data in the same run.

    python tools/bench_evaluation.py [--large 1000000]

The loop does what the official ActivityNet evaluator does, without its pandas look-ups: per class, per
detection by falling score, tIoU with that video's ground truths, then per threshold the best one that is
free. Detections are drawn around the ground truth of THUMOS14's size (213 videos, 20 classes, about 3,300
instances) and at random. Both run both sizes in full, on one core (set OMP_NUM_THREADS=1).
"""

import argparse
import resource
import sys
import time

import numpy as np

from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation
from wtal.evaluation.detection.average_precision import interpolated
from wtal.evaluation.detection.protocols import PROTOCOLS, detection_map

TIOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def draw(detections: int, seed: int = 0) -> tuple[AnnotationSet, dict[str, list[Detection]]]:
    """213 videos, 20 classes, 3,300 instances and `detections` detections."""
    rng = np.random.default_rng(seed)
    classes = tuple(f"class{index:02d}" for index in range(20))
    videos, predictions = {}, {}
    for index in range(213):
        name, label = f"video{index:03d}", classes[index % 20]
        starts = np.sort(rng.uniform(0, 200, rng.integers(1, 31)))
        instances = tuple(Instance(float(s), float(s + rng.uniform(1, 8)), label) for s in starts)
        videos[name] = VideoAnnotation(name, "test", (label,), instances, 210.0)
        found = []
        for _ in range(detections * (index + 1) // 213 - detections * index // 213):
            guess = instances[rng.integers(len(instances))]
            start = guess.start + rng.normal(0, 2) if rng.random() < 0.6 else rng.uniform(0, 200)
            other = label if rng.random() < 0.8 else classes[rng.integers(20)]
            found.append(Detection(float(start), float(start + rng.uniform(0.5, 9)), other, float(rng.random())))
        predictions[name] = found
    return AnnotationSet(classes, videos), predictions


def plain_loop(ground_truth: AnnotationSet, predictions: dict[str, list[Detection]]) -> list[float]:
    """mAP at each threshold, one detection at a time."""
    by_label = {label: [] for label in ground_truth.classes}
    for name, detections in predictions.items():
        for d in detections:
            by_label[d.label].append((name, d))
    ap = np.zeros((len(TIOU), len(ground_truth.classes)))
    for c, label in enumerate(ground_truth.classes):
        truths = {
            name: np.array([(i.start, i.end) for i in video.instances if i.label == label])
            for name, video in ground_truth.videos.items()
            if label in video.labels
        }
        found = sorted(by_label[label], key=lambda item: -item[1].score)
        used = {name: np.zeros((len(TIOU), len(segments)), dtype=bool) for name, segments in truths.items()}
        hit = np.zeros((len(TIOU), len(found)), dtype=bool)
        for n, (name, d) in enumerate(found):
            if name not in truths:
                continue
            start, end = truths[name].T
            intersection = np.maximum(np.minimum(end, d.end) - np.maximum(start, d.start), 0)
            tiou = intersection / ((end - start) + (d.end - d.start) - intersection)
            order = np.argsort(-tiou, kind="stable")
            for k, threshold in enumerate(TIOU):
                for g in order:
                    if tiou[g] < threshold:
                        break
                    if not used[name][k, g]:
                        used[name][k, g] = hit[k, n] = True
                        break
        positives = sum(map(len, truths.values()))
        ap[:, c] = [interpolated(hit[k], positives) for k in range(len(TIOU))]
    return ap.mean(axis=1).tolist()


def main() -> None:
    """Print seconds, ratios and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    options = parser.parse_args()
    if min(options.small, options.large) < 1:
        parser.error("--small and --large must be at least 1")

    ground_truth, predictions = draw(options.small)
    started = time.perf_counter()
    expected = plain_loop(ground_truth, predictions)
    loop = time.perf_counter() - started
    print(f"{options.small} detections, {len(TIOU)} thresholds")
    print(f"  plain loop (activitynet)  {loop:8.3f} s")
    for protocol in PROTOCOLS:
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            result = detection_map(ground_truth, predictions, protocol, TIOU)
            seconds.append(time.perf_counter() - started)
        print(
            f"  {protocol:24}  {seconds[0]:8.3f} s first, {min(seconds):.3f} s best, "
            f"{loop / min(seconds):.1f} times as fast"
        )
        if protocol == "activitynet" and not np.allclose(result.mAP, expected, atol=1e-12):
            sys.exit("the plain loop disagrees")

    ground_truth, predictions = draw(options.large)
    started = time.perf_counter()
    expected = plain_loop(ground_truth, predictions)
    loop = time.perf_counter() - started
    print(f"{options.large} detections, {len(TIOU)} thresholds")
    print(f"  plain loop (activitynet)  {loop:8.2f} s")
    for protocol in PROTOCOLS:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        result = detection_map(ground_truth, predictions, protocol, TIOU)
        seconds = time.perf_counter() - started
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"  {protocol:24}  {seconds:8.2f} s, {loop / seconds:.1f} times as fast, "
            f"peak memory grew by {grown:.0f} MiB"
        )
        if protocol == "activitynet" and not np.allclose(result.mAP, expected, atol=1e-12):
            sys.exit("the plain loop disagrees")


if __name__ == "__main__":
    main()
