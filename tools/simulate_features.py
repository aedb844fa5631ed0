"""Worlds of simulated features over real annotations, for work on the method where the real features cannot be had.

    python tools/simulate_features.py ANNOTATIONS --format thumos-npy --world 0 --out FOLDER
    python tools/simulate_features.py activitynet12.json --classes 20 --every 2 --subsets training validation \
        --world 0 --out FOLDER

A world's number draws its process from stated ranges (tools/simulated_worlds/process.py), so that a choice can be made
on some worlds (0 to 5) and reported on others (100 to 105) that nobody looked at. The ranges were set so that a world
resembles the field by its baselines alone, the scores being probabilities: softmax over classes of frozen CLIP-like
scores localises poorly and knows a video's classes; a warmed-up branch by multiple-instance learning localises as
published baselines do. The premise is then measured and printed, as it is: figures of both on the test videos, by
detection and by ternary labels (4).

The annotations give times, classes and durations; nothing else of the videos goes in, and a world may turn some
instances of a video into another class. What is learnt from such features is no result on the data set. Streams are
narrower than real ones (256, 256 and 128 numbers): that changes speed, not what is in them.

Legend: T snippets, L latent numbers, D feature width, C classes.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]

from simulated_worlds.premise import measure_premise  # noqa: E402
from simulated_worlds.process import LATENT, Process, World, draw, make_world, relabelled, video_latents  # noqa: E402

from feature_extraction.errors import UserError  # noqa: E402
from feature_extraction.store.grid import TimeGrid  # noqa: E402
from feature_extraction.store.stream import Stream, create_stream  # noqa: E402
from wtal.config.strict import build, override  # noqa: E402
from wtal.datasets.annotations import AnnotationSet, VideoAnnotation, write_activitynet  # noqa: E402
from wtal.datasets.formats.by_name import FORMATS, read_annotations  # noqa: E402

WIDTHS = {"rgb": 256, "flow": 256, "clip": 128}
NOISE = 0.25
"""Noise of single feature numbers; a latent vector is about as long as 1, and so is the size of a feature number."""


class View:
    """One stream of a world: how latents become its features."""

    def __init__(self, out: Path, name: str, world: World, seed: int, model: int = 1, narrow: int = 1) -> None:
        """`model`: number of the network behind the stream; each sees the same scenes in its own way. `narrow` divides
        the width."""
        rng = np.random.default_rng([seed, 2, model, list(WIDTHS).index(name)])
        self.name, self.model = name, model
        width = WIDTHS[name] // narrow + 32 * (model - 1)
        self.mapping_LD = rng.standard_normal((LATENT, width), np.float32)
        made = {"simulated": {**asdict(world.process), "world": seed, "model": model}}
        identity = {"fps": 25.0, "window": 16, "stride": 16, "dim": width, **made}
        self.stream: Stream = create_stream(out / "features", name, identity)
        if name == "clip":
            text_CD = world.direction["clip"][: len(world.classes)] @ self.mapping_LD
            text_CD += 0.3 * text_CD.std() * rng.normal(size=text_CD.shape)
            path = out / f"text{'' if model == 1 else model}.npz"
            np.savez(path, names=np.array(world.classes), embeddings=text_CD.astype(np.float32))

    def write(self, video: VideoAnnotation, latent_TL: np.ndarray, rng: np.random.Generator) -> None:
        feature_TD = latent_TL.astype(np.float32) @ self.mapping_LD
        feature_TD += NOISE * rng.standard_normal(feature_TD.shape, np.float32)
        if self.name != "clip":
            np.maximum(feature_TD, 0, out=feature_TD)
        sidecar = {"duration": video.duration, "source": f"{video.video_id}.mp4"}
        self.stream.write(video.video_id, feature_TD.astype(np.float16), sidecar)


def simulate(
    annotations: AnnotationSet, out: Path, process: Process, seed: int, clips: int = 1, narrow: int = 1
) -> None:
    """Write `out/features`, `out/annotations.json` and `out/text.npz`; videos that are there are skipped.

    With `clips` above 1 further CLIP-like streams of the same scenes, wider and with maps and noise of their own, and
    `text2.npz` and so on; prints the streams' names, by which a configuration chooses.
    """
    world = make_world(seed, process, annotations.classes)
    out.mkdir(parents=True, exist_ok=True)
    views = [View(out, name, world, seed, narrow=narrow) for name in WIDTHS]
    views += [View(out, "clip", world, seed, model, narrow) for model in range(2, clips + 1)]
    if clips > 1:
        print(*(view.stream.folder.name for view in views if view.name == "clip"))
    videos = {}
    for number, original in enumerate(tqdm(annotations.videos.values(), unit="video", disable=None)):
        if original.duration is None:
            raise UserError(f"video {original.video_id!r} has no duration; simulation needs it")
        rng = np.random.default_rng([seed, 1, number])
        video = relabelled(world, original, rng)
        videos[video.video_id] = video
        if all(video.video_id in view.stream for view in views):
            continue
        length = TimeGrid().snippets_of(int(video.duration * 25))
        latents = video_latents(world, video, length, rng)
        for view in views:
            view.write(
                video, latents[view.name], np.random.default_rng([seed, 3, number, view.model, ord(view.name[0])])
            )
    write_activitynet(out / "annotations.json", AnnotationSet(annotations.classes, videos))


def thin(annotations: AnnotationSet, subsets: list[str], classes: int | None, every: int) -> AnnotationSet:
    """Videos of `subsets` (none: all) that have the first `classes` classes alone, every `every`-th of each subset.

    Raises `UserError` for numbers less than 1 and where nothing is left.
    """
    if every < 1 or (classes is not None and classes < 1):
        raise UserError(f"--every and --classes must be at least 1, got {every} and {classes}")
    chosen = annotations.subset(*subsets) if subsets else annotations
    names = annotations.classes[:classes]
    kept: dict[str, VideoAnnotation] = {}
    for subset in dict.fromkeys(video.subset for video in chosen.videos.values()):
        own = [v for v in chosen.videos.values() if v.subset == subset and v.labels and set(v.labels) <= set(names)]
        kept |= {video.video_id: video for video in own[::every]}
    if not kept:
        raise UserError("no video is left; choose other --subsets or more --classes")
    return AnnotationSet(names, kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--format", default="activitynet", choices=list(FORMATS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world", type=int, default=0, metavar="N", help="draws the process; 0 to 5 are for choosing")
    parser.add_argument("--subsets", nargs="*", default=[], help="only these subsets (default: all)")
    parser.add_argument("--classes", type=int, metavar="C", help="only videos of the first C classes")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="only every K-th video of each subset")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="numbers of `Process`, as scene=0.4")
    parser.add_argument("--clips", type=int, default=1, help="CLIP-like models (default 1)")
    parser.add_argument("--narrow", type=int, default=1, metavar="K", help="streams a K-th as wide (for slow methods)")
    parser.add_argument("--premise", nargs=2, metavar=("TRAIN", "TEST"), help="subsets to check the premise on")
    parser.add_argument("--steps", type=int, default=300, help="warm-up steps of that check (default 300)")
    options = parser.parse_args()
    try:
        if options.world < 0:
            raise UserError(f"--world must not be negative, got {options.world}")
        if options.narrow not in (1, 2, 4, 8):
            raise UserError(f"--narrow must be 1, 2, 4 or 8, got {options.narrow}")
        process = build(Process, override(asdict(draw(options.world)), options.set))
        source = read_annotations(options.annotations, options.format)
        annotations = thin(source, options.subsets, options.classes, options.every)
        simulate(annotations, options.out, process, options.world, options.clips, options.narrow)
        if options.premise:
            print(measure_premise(options.out, *options.premise, options.steps))
    except UserError as error:
        print(f"simulate_features: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
