"""Simulated features over real annotations, for work on the method where the real features cannot be had.

    python tools/simulate_features.py ANNOTATIONS --format thumos-npy --out FOLDER

The process, per video, with latent vectors of 96 numbers:

1. A venue vector that holds all through the video (as scenes do), and slow noise (an AR(1) process, 3 s memory).
2. I3D-like latents: class evidence of each instance is strong (amplitude 1.0 .. 1.6) in a core, a contiguous
   30 to 60 % of the instance at a random place, and weak (0 .. 0.35) in the rest of it. One context segment in three
   holds a third of the evidence of a random class (a motion shared between classes). This is the branch's defect by
   construction: evidence for part of the action.
3. CLIP-like latents: class evidence (0.8 .. 1.2) over the whole instance and, at 70 %, over 2 to 6 s of context on both
   sides, where object and scene are in view; the venue vector is correlated with the video's classes. Evidence for
   more than the action.
4. A fixed random linear map to D dimensions, noise of standard deviation `--noise`, and for I3D a ReLU.

Class text embeddings (`text.npz`, for vlp.text=precomputed) are the classes' CLIP directions with noise.

The annotations give times, classes and durations; nothing else of the videos goes in. What is learnt from such
features says how the method behaves when its premise holds; it is no result on the data set.

Legend: T snippets, L latent numbers, D feature width, C classes.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from feature_extraction.errors import UserError
from feature_extraction.grid import TimeGrid
from feature_extraction.store import create_stream
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation, write_activitynet
from wtal.datasets.load import FORMATS, read_annotations

LATENT = 96
WIDTHS = {"rgb": 1024, "flow": 1024, "clip": 512}


def slow_noise(rng: np.random.Generator, length: int, memory: float) -> np.ndarray:
    """AR(1) noise `[T, L]` of unit variance with a memory of `memory` snippets."""
    keep = np.exp(-1 / memory)
    noise_TL = rng.normal(size=(length, LATENT))
    for t in range(1, length):
        noise_TL[t] = keep * noise_TL[t - 1] + np.sqrt(1 - keep**2) * noise_TL[t]
    return noise_TL


def video_latents(
    video: VideoAnnotation, classes: tuple[str, ...], direction: dict[str, np.ndarray], length: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Latents `[T, L]` of the streams by name; `direction` holds `[C, L]` of each."""
    snippet = TimeGrid().snippet_seconds
    evidence = {name: np.zeros((length, len(classes))) for name in WIDTHS}
    for instance in video.instances:
        label = classes.index(instance.label)
        first = max(0, int(instance.start / snippet))
        last = min(length, max(first + 1, int(np.ceil(instance.end / snippet))))
        if first >= length:
            continue
        span = last - first
        core = max(1, round(span * rng.uniform(0.3, 0.6)))
        begin = first + int(rng.integers(0, span - core + 1))
        for name in ("rgb", "flow"):
            weak = rng.uniform(0, 0.35)
            evidence[name][first:last, label] = np.maximum(evidence[name][first:last, label], weak)
            evidence[name][begin : begin + core, label] = rng.uniform(1.0, 1.6)
        reach = rng.uniform(2, 6, 2) / snippet
        before, after = max(0, int(first - reach[0])), min(length, int(np.ceil(last + reach[1])))
        amplitude = rng.uniform(0.8, 1.2)
        around = evidence["clip"][before:after, label]
        evidence["clip"][before:after, label] = np.maximum(around, 0.7 * amplitude)
        evidence["clip"][first:last, label] = amplitude
    for begin in range(0, length, 12):
        if rng.random() < 1 / 3:
            shared = int(rng.integers(len(classes)))
            for name in ("rgb", "flow"):
                part = evidence[name][begin : begin + 4, shared]
                evidence[name][begin : begin + 4, shared] = np.maximum(part, 0.35)
    venue = {name: 0.3 * rng.normal(size=LATENT) for name in WIDTHS}
    for label in video.labels:
        venue["clip"] = venue["clip"] + 0.25 * direction["clip"][classes.index(label)]
    return {
        name: evidence[name] @ direction[name] + venue[name] + 0.25 * slow_noise(rng, length, 3 / snippet)
        for name in WIDTHS
    }


def simulate(annotations: AnnotationSet, out: Path, noise: float, seed: int) -> None:
    """Write `out/features`, `out/annotations.json` and `out/text.npz`; videos that are there are skipped."""
    classes = annotations.classes
    world = np.random.default_rng([seed, 0])
    direction, mapping, streams = {}, {}, {}
    for name, width in WIDTHS.items():
        direction[name] = np.linalg.qr(world.normal(size=(LATENT, LATENT)))[0][: len(classes)]
        mapping[name] = world.normal(size=(LATENT, width)) / np.sqrt(LATENT)
        identity = {"fps": 25.0, "window": 16, "stride": 16, "dim": width, "simulated": {"noise": noise, "seed": seed}}
        streams[name] = create_stream(out / "features", name, identity)
    text_CD = direction["clip"] @ mapping["clip"]
    text_CD += 0.3 * text_CD.std() * world.normal(size=text_CD.shape)
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "text.npz", names=np.array(classes), embeddings=text_CD.astype(np.float32))
    write_activitynet(out / "annotations.json", annotations)
    for number, video in enumerate(tqdm(annotations.videos.values(), unit="video", disable=None)):
        if all(video.video_id in stream for stream in streams.values()):
            continue
        if video.duration is None:
            raise UserError(f"video {video.video_id!r} has no duration; simulation needs it")
        rng = np.random.default_rng([seed, 1, number])
        length = TimeGrid().snippets_of(int(video.duration * 25))
        latents = video_latents(video, classes, direction, length, rng)
        for name, stream in streams.items():
            feature_TD = latents[name] @ mapping[name] * np.sqrt(LATENT)
            feature_TD += noise * rng.normal(size=feature_TD.shape)
            if name != "clip":
                feature_TD = np.maximum(feature_TD, 0)
            stream.write(video.video_id, feature_TD, {"duration": video.duration, "source": f"{video.video_id}.mp4"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--format", default="activitynet", choices=list(FORMATS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--noise", type=float, default=1.0, help="standard deviation of the feature noise (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        simulate(read_annotations(options.annotations, options.format), options.out, options.noise, options.seed)
    except UserError as error:
        print(f"simulate_features: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
