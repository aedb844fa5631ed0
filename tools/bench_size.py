"""Memory of every command against the number of videos, on simulated features, each command in a process of its own.

    python tools/bench_size.py FOLDER --videos 2500 5000 10000 20000 [--classes 200] [--snippets 60] [--json]

FOLDER gets one feature store of the largest number of videos (what is there is kept, so that a stopped run goes on) and
for each number N an annotation file with N training videos and one with N test videos. A run trained on N videos, and
one trained on a few that predicts, evaluates, reports and exports N. Printed for each command: the peak of its resident
memory (as the kernel counts it: with the pages of mapped files that are in memory) and its seconds.

Features are noise about one direction a class, in the middle of an instance: what is measured is memory, and detections
by the hundred a video are what matters. `--classes` and `--snippets` (the mean length) set the world's size.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from tqdm import tqdm

from feature_extraction.store.stream import create_stream
from wtal.datasets.annotations import AnnotationSet, Instance, VideoAnnotation, write_activitynet

DIMS = {"rgb": 64, "flow": 64, "clip": 32}
FEW = 40
"""Training videos of the runs that predict."""
SNIPPET = 0.64


def make_world(folder: Path, videos: int, classes: int, snippets: int) -> list[VideoAnnotation]:
    """Features of `videos` videos in `folder/features`, and what happens in them."""
    rng = np.random.default_rng(0)
    grid = {"fps": 25.0, "window": 16, "stride": 16, "simulated": {"classes": classes, "snippets": snippets}}
    streams = {name: create_stream(folder / "features", name, {**grid, "dim": dim}) for name, dim in DIMS.items()}
    direction = {name: rng.normal(size=(classes, dim)).astype(np.float32) for name, dim in DIMS.items()}
    np.savez(folder / "text.npz", names=names_of(classes), embeddings=direction["clip"])
    found = []
    for number in tqdm(range(videos), "features", unit="video", disable=None):
        rng = np.random.default_rng([1, number])
        length, label, video_id = int(rng.integers(snippets // 2, snippets * 3 // 2)), number % classes, f"v{number:05}"
        starts = np.sort(rng.integers(0, max(1, length - 8), 2)).tolist()
        instances = tuple(Instance(s * SNIPPET, (s + 8) * SNIPPET, names_of(classes)[label]) for s in starts)
        found.append(VideoAnnotation(video_id, "", (names_of(classes)[label],), instances, length * SNIPPET))
        if all(video_id in stream for stream in streams.values()):
            continue
        for name, stream in streams.items():
            array_TD = rng.standard_normal((length, DIMS[name]), dtype=np.float32)
            for start in starts:
                array_TD[start : start + 8] += direction[name][label]
            stream.write(video_id, array_TD, {"duration": length * SNIPPET, "source": f"{video_id}.mp4"})
    return found


def names_of(classes: int) -> list[str]:
    return [f"class {number:03}" for number in range(classes)]


def annotate(path: Path, training: list[VideoAnnotation], test: list[VideoAnnotation], classes: int) -> None:
    """An annotation file with these videos in the two subsets."""
    of = {"training": training, "validation": test}
    videos = {v.video_id: VideoAnnotation(v.video_id, name, *_rest(v)) for name, part in of.items() for v in part}
    write_activitynet(path, AnnotationSet(tuple(names_of(classes)), videos))


def _rest(video: VideoAnnotation) -> tuple:
    return video.labels, video.instances, video.duration


def configure(folder: Path, name: str, steps: int) -> Path:
    """A configuration of a run on `folder/NAME.json`."""
    values = {
        "out": str(folder / name),
        "data": {"annotations": str(folder / f"{name}.json"), "features": str(folder / "features")},
        "cbp": {"width": 64, "heads": 4},
        "vlp": {"text": "precomputed", "text_embeddings": str(folder / "text.npz"), "heads": 4, "scale": 10.0},
        "schedule": {"warmup_steps": steps, "rounds": 1, "b_steps": steps, "f_steps": steps},
        "training": {"threads": 1},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def measured(*words: str, log: Path, start: tuple[str, ...] = ("-m", "wtal")) -> dict[str, float]:
    """One command in a process of its own: its peak resident memory (MB, of the largest process) and seconds."""
    begun = time.perf_counter()
    with open(log, "ab") as stream:
        process = os.fork()
        if not process:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            os.execv(sys.executable, [sys.executable, *start, *words])
        _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"wtal {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}; see {log}")
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return {"mb": usage.ru_maxrss / scale, "seconds": time.perf_counter() - begun}


def bench(folder: Path, videos: list[VideoAnnotation], classes: int, steps: int) -> dict[str, dict[str, float]]:
    """Every command on these videos."""
    count, log = len(videos), folder / f"log-{len(videos)}.txt"
    annotate(folder / f"train-{count}.json", videos[:-1], videos[-1:], classes)
    annotate(folder / f"test-{count}.json", videos[:FEW], videos[FEW:], classes)
    test, out = folder / f"test-{count}", folder / f"found-{count}.json"
    commands = {
        "train": ("train", configure(folder, f"train-{count}", steps)),
        "": ("train", configure(folder, test.name, steps)),
        "predict": ("predict", test, "--out", out),
        "predict again": ("predict", test, "--out", out),
        "evaluate": ("evaluate", test, test.with_suffix(".json"), "--subset", "validation", "--videos"),
        "report": ("report", test),
    }
    for tool in ("csv", "label-studio", "fiftyone", "via", "vtt", "elan"):
        words = ("export", test / "predictions.json", "--to", tool, "--out", test / "export" / tool)
        commands[f"export {tool}"] = words
    rows = {}
    for name, words in commands.items():
        row = measured(*map(str, words), log=log)
        if name:
            rows[name] = row
            said = f"{count:6} videos  {name:20} {row['mb']:8.0f} MB {row['seconds']:8.1f} s"
            print(said, file=sys.stderr, flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, nargs="+", default=[2500, 5000, 10000, 20000], metavar="N")
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--snippets", type=int, default=60, help="mean length of a video (default 60: 38 s)")
    parser.add_argument("--steps", type=int, default=20, help="steps of each phase")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if min(options.videos) <= FEW or options.classes < 1 or options.snippets < 20 or options.steps < 1:
        parser.error(f"more than {FEW} videos, at least one class and step, and 20 snippets")
    options.folder.mkdir(parents=True, exist_ok=True)
    world = make_world(options.folder, max(options.videos), options.classes, options.snippets)
    results = {}
    for count in sorted(options.videos):
        results[count] = bench(options.folder, world[:count], options.classes, options.steps)
    if options.json:
        print(json.dumps({"classes": options.classes, "snippets": options.snippets, "runs": results}))
        return 0
    print(
        "| peak, MB |" + "".join(f" {count} videos |" for count in results), "|---" * (len(results) + 1) + "|", sep="\n"
    )
    for name in next(iter(results.values())):
        print(f"| {name} |" + "".join(f" {rows[name]['mb']:.0f} |" for rows in results.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
