"""Simulated features over real annotations, for work on the method where the real features cannot be had.

    python tools/simulate_features.py ANNOTATIONS --format thumos-npy --out FOLDER

The process, per video, with latent vectors of 96 numbers; `Process` holds every number of it:

1. A venue vector that holds all through the video (as scenes do), slow noise (an AR(1) process, 3 s memory) and noise
   of single snippets.
2. I3D-like latents: class evidence of each instance is strong in a core, a contiguous 15 to 40 % of the instance at a
   random place, and weak in the rest of it. One stretch in three holds a third of the evidence of a random class
   (a motion shared between classes). This is the branch's defect by construction: evidence for part of the action.
3. CLIP-like latents: class evidence over the whole instance and, weaker, over 1 to 2.5 s of context on both sides,
   where object and scene are in view; the venue vector is correlated with the video's classes. Evidence for more than
   the action.
4. A fixed random linear map to D dimensions, white noise, and for I3D a ReLU.

The noise was set by looking at the training videos of THUMOS14 alone: frozen CLIP's min-max scaled scores above 0.3
have foreground mIoU 0.56 and background 0.73 there (an earlier setting, 0.55 and 0.72, had frame recall 1.00), a
convolution after 300 warm-up steps on every second video 0.46 and 0.80. The I3D venue matters most: at 0.3 the warm-up
learnt the videos by heart and localised nothing (0.32 and 0.25), at 0.15, all else equal, 0.54 and 0.79.

Class text embeddings (`text.npz`, for vlp.text=precomputed) are the classes' CLIP directions with noise.

The annotations give times, classes and durations; nothing else of the videos goes in. What is learnt from such
features says how the method behaves when its premise holds; it is no result on the data set.

Legend: T snippets, L latent numbers, D feature width, C classes.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from feature_extraction.errors import UserError
from feature_extraction.store.grid import TimeGrid
from feature_extraction.store.stream import Stream, create_stream
from wtal.config.strict import build, override
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation, write_activitynet
from wtal.datasets.formats.by_name import FORMATS, read_annotations

LATENT = 96
WIDTHS = {"rgb": 1024, "flow": 1024, "clip": 512}


@dataclass(frozen=True, kw_only=True)
class Process:
    """The numbers of the process. Amplitudes are of single latent numbers; ranges are drawn from uniformly."""

    core: tuple[float, float] = (0.15, 0.4)
    """I3D: share of an instance that its core takes."""
    core_evidence: tuple[float, float] = (1.0, 1.6)
    """I3D: class evidence in the core."""
    rest_evidence: tuple[float, float] = (0.0, 0.35)
    """I3D: class evidence in the rest of the instance."""
    shared_evidence: float = 0.35
    """I3D: evidence of a random class in one stretch of four snippets out of three times three."""
    clip_evidence: tuple[float, float] = (0.8, 1.2)
    """CLIP: class evidence over the whole instance."""
    context: tuple[float, float] = (1.0, 2.5)
    """CLIP: seconds of context on each side."""
    context_share: float = 0.3
    """CLIP: evidence in the context, as a share of that in the instance."""
    i3d_venue: float = 0.05
    """I3D: what holds all through a video."""
    clip_venue: float = 0.3
    """CLIP: what holds all through a video."""
    venue_class: float = 0.25
    """CLIP: part of the venue that the video's classes have in common."""
    i3d_slow: float = 0.03
    """I3D: slow noise (3 s memory)."""
    i3d_fast: float = 0.0
    """I3D: noise of single snippets."""
    clip_slow: float = 0.04
    """CLIP: slow noise."""
    clip_fast: float = 0.0
    """CLIP: noise of single snippets."""
    noise: float = 0.25
    """Noise of single feature numbers."""


def slow_noise(rng: np.random.Generator, length: int, memory: float) -> np.ndarray:
    """AR(1) noise `[T, L]` of unit variance with a memory of `memory` snippets."""
    keep = np.exp(-1 / memory)
    noise_TL = rng.normal(size=(length, LATENT))
    for t in range(1, length):
        noise_TL[t] = keep * noise_TL[t - 1] + np.sqrt(1 - keep**2) * noise_TL[t]
    return noise_TL


def video_latents(
    video: VideoAnnotation,
    classes: tuple[str, ...],
    direction: dict[str, np.ndarray],
    length: int,
    process: Process,
    rng: np.random.Generator,
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
        core = max(1, round(span * rng.uniform(*process.core)))
        begin = first + int(rng.integers(0, span - core + 1))
        for name in ("rgb", "flow"):
            weak = rng.uniform(*process.rest_evidence)
            evidence[name][first:last, label] = np.maximum(evidence[name][first:last, label], weak)
            evidence[name][begin : begin + core, label] = rng.uniform(*process.core_evidence)
        reach = rng.uniform(*process.context, 2) / snippet
        before, after = max(0, int(first - reach[0])), min(length, int(np.ceil(last + reach[1])))
        amplitude = rng.uniform(*process.clip_evidence)
        around = evidence["clip"][before:after, label]
        evidence["clip"][before:after, label] = np.maximum(around, process.context_share * amplitude)
        evidence["clip"][first:last, label] = amplitude
    for begin in range(0, length, 12):
        if rng.random() < 1 / 3:
            shared = int(rng.integers(len(classes)))
            for name in ("rgb", "flow"):
                part = evidence[name][begin : begin + 4, shared]
                evidence[name][begin : begin + 4, shared] = np.maximum(part, process.shared_evidence)
    strength = {"rgb": process.i3d_venue, "flow": process.i3d_venue, "clip": process.clip_venue}
    venue = {name: strength[name] * rng.normal(size=LATENT) for name in WIDTHS}
    for label in video.labels:
        venue["clip"] = venue["clip"] + process.venue_class * direction["clip"][classes.index(label)]
    latents = {}
    for name in WIDTHS:
        slow, fast = (process.clip_slow, process.clip_fast) if name == "clip" else (process.i3d_slow, process.i3d_fast)
        latents[name] = evidence[name] @ direction[name] + venue[name]
        latents[name] += slow * slow_noise(rng, length, 3 / snippet) + fast * rng.normal(size=(length, LATENT))
    return latents


def simulate(annotations: AnnotationSet, out: Path, process: Process, seed: int, clips: int = 1) -> None:
    """Write `out/features`, `out/annotations.json` and `out/text.npz`; videos that are there are skipped.

    With `clips` above 1 further CLIP-like streams of the same scenes, by models of their own (another width, map and
    noise), and `text2.npz` and so on; prints the streams' names, by which a configuration chooses.
    """
    classes = annotations.classes
    world = np.random.default_rng([seed, 0])
    direction, mapping, streams = {}, {}, {}
    for name, width in WIDTHS.items():
        direction[name] = np.linalg.qr(world.normal(size=(LATENT, LATENT)))[0][: len(classes)]
        mapping[name] = world.normal(size=(LATENT, width)) / np.sqrt(LATENT)
        made = {"simulated": {**asdict(process), "seed": seed}}
        identity = {"fps": 25.0, "window": 16, "stride": 16, "dim": width, **made}
        streams[name] = create_stream(out / "features", name, identity)
    text_CD = direction["clip"] @ mapping["clip"]
    text_CD += 0.3 * text_CD.std() * world.normal(size=text_CD.shape)
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "text.npz", names=np.array(classes), embeddings=text_CD.astype(np.float32))
    write_activitynet(out / "annotations.json", annotations)
    others = [more_clip(out, direction["clip"], classes, process, seed, model) for model in range(2, clips + 1)]
    if others:
        print(*(stream.folder.name for stream in (streams["clip"], *(stream for stream, _ in others))))
    for number, video in enumerate(tqdm(annotations.videos.values(), unit="video", disable=None)):
        if all(video.video_id in stream for stream in (*streams.values(), *(stream for stream, _ in others))):
            continue
        if video.duration is None:
            raise UserError(f"video {video.video_id!r} has no duration; simulation needs it")
        rng = np.random.default_rng([seed, 1, number])
        length = TimeGrid().snippets_of(int(video.duration * 25))
        latents = video_latents(video, classes, direction, length, process, rng)
        for name, stream in streams.items():
            feature_TD = latents[name] @ mapping[name] * np.sqrt(LATENT)
            feature_TD += process.noise * rng.normal(size=feature_TD.shape)
            if name != "clip":
                feature_TD = np.maximum(feature_TD, 0)
            stream.write(video.video_id, feature_TD, {"duration": video.duration, "source": f"{video.video_id}.mp4"})
        for model, (stream, mapping_LD) in enumerate(others, 2):
            rng = np.random.default_rng([seed, model, number])
            latent_TL = latents["clip"] + process.clip_slow * slow_noise(rng, length, 3 / TimeGrid().snippet_seconds)
            feature_TD = latent_TL @ mapping_LD * np.sqrt(LATENT)
            feature_TD += process.noise * rng.normal(size=feature_TD.shape)
            stream.write(video.video_id, feature_TD, {"duration": video.duration, "source": f"{video.video_id}.mp4"})


def more_clip(
    out: Path, direction_CL: np.ndarray, classes: tuple[str, ...], process: Process, seed: int, model: int
) -> tuple[Stream, np.ndarray]:
    """Stream and map `[L, D]` of one more CLIP-like model, 640 numbers wide; writes its class texts."""
    rng = np.random.default_rng([seed, 0, model])
    mapping_LD = rng.normal(size=(LATENT, 640)) / np.sqrt(LATENT)
    text_CD = direction_CL @ mapping_LD
    text_CD += 0.3 * text_CD.std() * rng.normal(size=text_CD.shape)
    np.savez(out / f"text{model}.npz", names=np.array(classes), embeddings=text_CD.astype(np.float32))
    made = {"simulated": {**asdict(process), "seed": seed, "model": model}}
    identity = {"fps": 25.0, "window": 16, "stride": 16, "dim": 640, **made}
    return create_stream(out / "features", "clip", identity), mapping_LD


def thin(annotations: AnnotationSet, every: int) -> AnnotationSet:
    """Every `every`-th video of each subset, in order. Raises `UserError` for less than 1."""
    if every < 1:
        raise UserError(f"--every must be at least 1, got {every}")
    kept: dict[str, VideoAnnotation] = {}
    for subset in dict.fromkeys(video.subset for video in annotations.videos.values()):
        own = [video for video in annotations.videos.values() if video.subset == subset]
        kept |= {video.video_id: video for video in own[::every]}
    return AnnotationSet(annotations.classes, kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--format", default="activitynet", choices=list(FORMATS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, metavar="K", help="only every K-th video of each subset")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="numbers of `Process`, as noise=2")
    parser.add_argument("--clips", type=int, default=1, help="CLIP-like models (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        process = build(Process, override({}, options.set))
        annotations = thin(read_annotations(options.annotations, options.format), options.every)
        simulate(annotations, options.out, process, options.seed, options.clips)
    except UserError as error:
        print(f"simulate_features: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
