"""Speed of inference, scores to detections, against plain loops on the same data in the same run.

    python tools/bench_inference.py [--videos 213] [--loop-videos 10]

THUMOS14's test set in size (213 videos of 338 snippets on average, 20 classes), smooth random scores, every
class localised at 20 thresholds, outer-inner contrast, Gaussian soft-NMS. The loop walks over classes,
thresholds and snippets, and over pairs of proposals in soft-NMS, as the public repositories do; it runs on
`--loop-videos` of the videos, and the ratio is taken on those. Times are CPU seconds of one core. Needs no
files.
"""

import argparse
import math
import time

import numpy as np
from scipy.ndimage import gaussian_filter1d

from feature_extraction.store.grid import TimeGrid
from wtal.config.inference import InferenceSettings
from wtal.inference.detect import detect
from wtal.inference.scores import VideoScores

CLASSES = tuple(f"class{index:02d}" for index in range(20))
SETTINGS = InferenceSettings(
    class_rule="top",
    class_top=20,
    thresholds=tuple(np.linspace(0.05, 0.95, 20).tolist()),
    scaling="minmax",
    score="oic",
    gamma=0.2,
    nms="gaussian",
)


def draw(videos: int) -> list[VideoScores]:
    """Scores of `videos` videos: log-normal lengths, noise smoothed over about five snippets, then a
    sigmoid."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(videos):
        length = int(np.clip(rng.lognormal(5.6, 0.6), 20, 2000))
        noise_TC = gaussian_filter1d(rng.standard_normal((length, len(CLASSES))), 2, axis=0)
        frame_TC = (1 / (1 + np.exp(-4 * noise_TC))).astype(np.float32)
        drawn.append(VideoScores(frame_TC, rng.random(20).astype(np.float32), TimeGrid(), length * 0.64))
    return drawn


def loop(scores: VideoScores) -> list[tuple[float, float, str, float]]:
    """The same detections, by falling score, one proposal at a time."""
    found = []
    for column, label in enumerate(CLASSES):
        signal = scores.frame_TC[:, column]
        signal = ((signal - signal.min()) / (signal.max() - signal.min())).tolist()
        raw = scores.frame_TC[:, column].astype(float).tolist()
        spans = set()
        for threshold in np.asarray(SETTINGS.thresholds, dtype=np.float32).tolist():
            start = None
            for position, value in enumerate([*signal, -1.0]):
                if value > threshold and start is None:
                    start = position
                elif not value > threshold and start is not None:
                    spans.add((start, position))
                    start = None
        left = []
        for start, end in sorted(spans):
            length = end - start
            low = max(0, int(start - 0.25 * length))
            high = min(len(raw) - 1, int(end - 1 + 0.25 * length))
            outer = raw[low:start] + raw[end : high + 1]
            contrast = sum(raw[start:end]) / length - (sum(outer) / len(outer) if outer else 0.0)
            left.append([start, end, contrast + 0.2 * float(scores.video_C[column])])
        while left:
            best = max(range(len(left)), key=lambda i: left[i][2])
            start, end, score = left.pop(best)
            found.append((start * 0.64, end * 0.64, label, score))
            for other in left:
                inter = min(end, other[1]) - max(start, other[0])
                if inter > 0 and other[2] > 0:
                    overlap = inter / (end - start + other[1] - other[0] - inter)
                    other[2] *= math.exp(-(overlap**2) / SETTINGS.nms_sigma)
    return sorted(found, key=lambda item: -item[3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=213)
    parser.add_argument("--loop-videos", type=int, default=10)
    options = parser.parse_args()
    if min(options.videos, options.loop_videos) < 1:
        parser.error("--videos and --loop-videos must be at least 1")
    videos = draw(options.videos)
    few = videos[: options.loop_videos]
    began = time.process_time()
    detect(few[0], CLASSES, SETTINGS)
    print(f"first call (compiles soft-NMS, or loads it from its cache): {time.process_time() - began:.2f} s")

    began = time.process_time()
    looped = [loop(scores) for scores in few]
    loop_seconds = time.process_time() - began
    began = time.process_time()
    own = [detect(scores, CLASSES, SETTINGS) for scores in few]
    own_seconds = time.process_time() - began
    for mine, plain in zip(own, looped, strict=True):
        assert len(mine) == len(plain)
        np.testing.assert_allclose([d.score for d in mine], [item[3] for item in plain], rtol=0, atol=1e-5)
    ratio = loop_seconds / own_seconds
    print(f"{len(few)} videos: loop {loop_seconds:.2f} s, wtal {own_seconds:.3f} s: "
        f"{ratio:.0f} times as fast,"
          " the same scores")  # fmt: skip

    began = time.process_time()
    count = sum(len(detect(scores, CLASSES, SETTINGS)) for scores in videos)
    seconds = time.process_time() - began
    mean = np.mean([len(scores.frame_TC) for scores in videos])
    print(f"{len(videos)} videos (mean {mean:.0f} snippets) x {len(CLASSES)} classes x "
        f"{len(SETTINGS.thresholds)} "
          f"thresholds: {seconds:.2f} s, {count:,} detections")  # fmt: skip


if __name__ == "__main__":
    main()
