"""Cost and peak memory against size, each command in a process of its own: how long a video is, how many classes and
detections there are, how many processes and Ray workers share the work.

    wtal demo
    python tools/bench_curves.py FOLDER [--only lengths classes detections processes workers] [--json]

`lengths`: a video of the demo repeated for up to three hours, extracted and predicted, then predicted once more from
the features. `classes` and `detections`: simulated worlds (`bench_size.py`) and generated detections. `processes`: the
training of THUMOS14's widths under torchrun. `workers`: extraction of the demo's videos by Ray. `--sizes` are others
for the one curve that `--only` names. What a call before made in FOLDER is made anew. Call it where `wtal demo` was
called: the paths in a run's configuration start there.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml
from bench_size import annotate, configure, make_world, measured, names_of

from wtal.commands.bench_stages.training import make_store
from wtal.datasets.annotations import AnnotationSet, Detection, Instance, VideoAnnotation, write_activitynet
from wtal.datasets.detections import Detections, write_predictions


@dataclass(frozen=True)
class Point:
    """One command at one size."""

    size: int
    unit: str
    what: str
    seconds: float
    mb: float


def lengths(folder: Path, sizes: list[int], demo: Path) -> Iterator[Point]:
    """Minutes of one video: from the file to detections, and from its features to detections."""
    source = sorted((demo / "world" / "videos").glob("*.mp4"))[0]
    features = folder / "long-features"
    shutil.rmtree(features, ignore_errors=True)
    for minutes in sizes:
        video = folder / "long" / f"minutes_{minutes}.mp4"
        repeat(source, video, minutes * 60)
        words = ("predict", demo, "--video", video, "--features", features, "--out", folder / "p.json")
        for what in ("from the file", "from its features"):
            yield Point(minutes, "minutes", what, **run(folder, *words))


def repeat(source: Path, path: Path, seconds: float) -> None:
    """The pictures of `source` again and again, without coding them anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream, shift = None, 0
        while True:
            with av.open(str(source)) as video:
                own = video.streams.video[0]
                stream = stream or out.add_stream_from_template(own)
                packets = [packet for packet in video.demux(own) if packet.dts is not None]
                length = packets[-1].dts + packets[-1].duration - packets[0].dts
                for packet in packets:
                    packet.stream = stream
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    out.mux(packet)
                shift += length
                if shift * own.time_base >= seconds:
                    return


def classes(folder: Path, sizes: list[int], demo: Path) -> Iterator[Point]:
    """Classes of a world of 400 videos: training (100 steps), prediction, evaluation of what it found."""
    for count in sizes:
        place = folder / f"classes-{count}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        world = make_world(place, 400, count, 60)
        annotate(place / "run.json", world[:200], world[200:], count)
        config, found = configure(place, "run", 34), place / "found.json"
        for what, words in {
            "train": ("train", config),
            "predict": ("predict", place / "run", "--out", found),
            "evaluate": ("evaluate", found, place / "run.json", "--subset", "validation"),
        }.items():
            yield Point(count, "classes", what, **run(folder, *words))


def detections(folder: Path, sizes: list[int], demo: Path) -> Iterator[Point]:
    """Detections, a hundred a video, 20 classes: `wtal evaluate` of the file, reading it included."""
    for count in sizes:
        truth, found = folder / f"truth-{count}.json", folder / f"detections-{count}.json"
        generate(truth, found, count // 100)
        words = ("evaluate", found, truth, "--subset", "validation", "--protocol", "activitynet")
        yield Point(count, "detections", "evaluate", **run(folder, *words))
        found.unlink()


def generate(truth: Path, found: Path, videos: int) -> None:
    """Ground truth of two instances a video, and a hundred detections a video anywhere."""
    rng = np.random.default_rng(0)
    names = names_of(20)

    def own(number: int) -> VideoAnnotation:
        label = names[number % 20]
        instances = tuple(Instance(start, start + 8.0, label) for start in (10.0, 70.0))
        return VideoAnnotation(f"v{number:06}", "validation", (label,), instances, 120.0)

    def anywhere(label: str) -> list[Detection]:
        start_N, long_N, score_N = rng.random(100) * 100, rng.random(100) * 16 + 1, rng.random(100)
        rows = zip(start_N.tolist(), (start_N + long_N).tolist(), score_N.tolist(), strict=True)
        return [Detection(start, end, label, score) for start, end, score in rows]

    annotations = AnnotationSet(tuple(names), {video.video_id: video for video in map(own, range(videos))})
    write_activitynet(truth, annotations)
    # objects of one video at a time: those of ten million detections do not fit
    write_predictions(found, Detections((v.video_id, anywhere(v.labels[0])) for v in annotations.videos.values()))


def processes(folder: Path, sizes: list[int], demo: Path) -> Iterator[Point]:
    """Processes of one thread each that share a training of THUMOS14's widths: 12 steps a phase, 10 x 320 snippets."""
    store = make_store(folder, 60)
    values: dict[str, Any] = {
        "data": {"annotations": str(folder / "annotations.json"), "features": str(store)},
        "cbp": {"name": "convolution"},
        "vlp": {"text": "precomputed", "text_embeddings": str(folder / "text.npz"), "scale": 20.0},
        "schedule": {"warmup_steps": 12, "rounds": 1, "b_steps": 12, "f_steps": 12},
        "training": {"threads": 1},
    }
    for count in sizes:
        out = folder / f"processes-{count}"
        shutil.rmtree(out, ignore_errors=True)
        config = folder / f"processes-{count}.yaml"
        config.write_text(yaml.safe_dump(values | {"out": str(out)}), encoding="utf-8")
        start = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m", "wtal")
        yield Point(count, "processes", "train", **run(folder, "train", config, start=start))


def workers(folder: Path, sizes: list[int], demo: Path) -> Iterator[Point]:
    """Ray workers of one core each that share the extraction of the demo's videos; 0 is one process with all cores."""
    for count in sizes:
        out = folder / f"workers-{count}"
        shutil.rmtree(out, ignore_errors=True)
        words = ("extract", demo / "world" / "videos", "--out", out, "--config", "sandbox")
        ray = ("--runner", "ray", "--ray-workers", count) if count else ()
        yield Point(count, "workers", "extract", **run(folder, *words, *ray))


Curve = Callable[[Path, list[int], Path], Iterator[Point]]
CURVES: dict[str, tuple[Curve, list[int]]] = {
    # and the sizes that are measured unless others are asked for
    "lengths": (lengths, [1, 10, 60, 180]),
    "classes": (classes, [20, 200, 1000]),
    "detections": (detections, [100_000, 1_000_000, 10_000_000]),
    "processes": (processes, [1, 2]),
    "workers": (workers, [0, 1, 2]),
}


def run(folder: Path, *words: Any, start: tuple[str, ...] = ("-m", "wtal")) -> dict[str, float]:
    """Seconds and peak memory of a command."""
    return measured(*map(str, words), log=folder / "log.txt", start=start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="run folder of `wtal demo`")
    parser.add_argument("--only", nargs="+", choices=list(CURVES), default=list(CURVES))
    parser.add_argument("--sizes", type=int, nargs="+", help="of the one curve that --only names")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.sizes and len(options.only) != 1:
        parser.error("--sizes needs one curve: --only NAME")
    if {"lengths", "workers"} & set(options.only) and not (options.demo / "summary.json").is_file():
        parser.error(f"{options.demo} is no finished demo; run `wtal demo`, or name its folder with --demo")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    points = []
    for name in options.only:
        curve, sizes = CURVES[name]
        for point in curve(folder, options.sizes or sizes, options.demo.resolve()):
            points.append(point)
            said = f"{point.size:>10,} {point.unit:10} {point.what:18} {point.seconds:8.1f} s {point.mb:7.0f} MB"
            print(said, file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([vars(point) for point in points], indent=1))
        return 0
    print("| | | seconds | peak, MB |", "|---|---|---|---|", sep="\n")
    for point in points:
        print(f"| {point.size:,} {point.unit} | {point.what} | {point.seconds:.1f} | {point.mb:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
