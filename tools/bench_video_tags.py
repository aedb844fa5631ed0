"""The learnable-pooling paper's comparison on one's own features: streams, poolings, gates, clusters, ensembles.

    python tools/bench_video_tags.py sandbox data.annotations=... data.features=... --out runs/tags

Every row is a run folder of `wtal train-video-classifier` in OUT, so a stopped comparison goes on, and each can tag and
be reported. Rows of one table differ from its base in one thing. Mean and standard deviation over seeds, on the test
videos; the last epoch is measured, nothing is chosen on them.
"""

import argparse
import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from feature_extraction.files import hash8, read_json, write_json
from feature_extraction.progress import progress
from wtal.config.load import load_config
from wtal.config.strict import build, override
from wtal.config.video_classifier import VideoClassifierRun, VideoClassifierTraining
from wtal.datasets.features import FeatureSet, available, open_features
from wtal.datasets.formats.by_name import load_annotations
from wtal.datasets.formats.tags import Tags, VideoTags, read_tags, write_tags
from wtal.datasets.splits import split
from wtal.evaluation.classification import tagging_metrics
from wtal.evaluation.detection.protocols import detection_map
from wtal.evaluation.tables import markdown_table
from wtal.inference.detect import choose_classes
from wtal.runs.ablation.jobs import end_with_parent
from wtal.runs.localizer import Localizer, open_run
from wtal.runs.measure import videos_of
from wtal.training.data import label_matrix
from wtal.training.folder import RunFolder
from wtal.training.run import inputs_of
from wtal.training.video_classifier import train_video_classifier

DROP = "stream_dropout=0.5"
BOTH = "rgb,logmel"
BASE = (BOTH, DROP)
ROWS: dict[str, dict[str, tuple[str, ...]]] = {
    # table: row -> (streams, settings ...)
    "streams": {
        "RGB": ("rgb",),
        "audio": ("logmel",),
        "RGB + audio, side by side (early)": (BOTH, "model.join=early"),
        "RGB + audio (late)": (BOTH,),
        "RGB + audio (late), stream dropout": BASE,
    },
    "pooling": {
        "mean": (*BASE, "model.aggregation=mean"),
        "LSTM, 64 units": (*BASE, "model.aggregation=lstm", "model.hidden=64"),
        "GRU, 64 units": (*BASE, "model.aggregation=gru", "model.hidden=64"),
        "soft-DBoW": (*BASE, "model.aggregation=soft_dbow"),
        "NetFV": (*BASE, "model.aggregation=netfv"),
        "NetRVLAD": (*BASE, "model.aggregation=netrvlad"),
        "NetVLAD": BASE,
    },
    "gating": {
        "no gate": (*BASE, "model.gate_features=false"),
        "gate before the classifier": BASE,
        "gate after it": (*BASE, "model.gate_features=false", "model.gate_classes=true"),
        "both": (*BASE, "model.gate_classes=true"),
    },
    "clusters": {str(count): BASE if count == 32 else (*BASE, f"model.clusters={count}") for count in (2, 8, 32, 128)},
}
ENSEMBLES = {
    # of what the rows above have trained
    "one run": ["RGB + audio (late), stream dropout"],
    "RGB and audio, a run each": ["RGB", "audio"],
    "RGB, audio and both": ["RGB", "audio", "RGB + audio (late), stream dropout"],
    "NetVLAD, NetRVLAD, NetFV, soft-DBoW": ["NetVLAD", "NetRVLAD", "NetFV", "soft-DBoW"],
}
JOINED = ("RGB and audio, a run each", "RGB, audio and both")
"""Ensembles that stand beside the streams."""
MEASURES = {"video_map": "mAP", "gap": "GAP@20", "hit_at_1": "hit@1", "perr": "PERR"}


def folder_of(options: argparse.Namespace, job: tuple[tuple[str, ...], int]) -> RunFolder:
    """The run folder of a row and a seed."""
    (streams, *sets), seed = job
    words = [word.removeprefix("model.").replace("=", "_") for word in sets]
    return RunFolder(options.out / "-".join([streams.replace(",", "+"), *words, f"seed{seed}"]), "--out")


def trained(options: argparse.Namespace, job: tuple[tuple[str, ...], int]) -> dict:
    """A row's run: trained where it is not, measured, its scores kept beside it."""
    (streams, *sets), seed = job
    torch.set_num_threads(1)
    run = folder_of(options, job)
    kept = run.path / "bench.json"
    if kept.is_file():
        return read_json(kept)
    config = load_config(options.config, [*options.overrides, f"data.streams=[{streams}]"])
    recipe = build(VideoClassifierTraining, override({"seed": seed, "checkpoint_epochs": 1000}, [*options.set, *sets]))
    annotations = load_annotations(config.data)
    parts = split(annotations, config.data)
    features: FeatureSet = open_features(config.data)
    train_ids, _ = available(features, sorted(parts.train.videos), config.data.missing)
    test_ids, _ = available(features, sorted(parts.test.videos), config.data.missing)
    labels = {video_id: video.labels for video_id, video in annotations.videos.items()}
    settings = VideoClassifierRun(data=config.data, extraction=config.extraction, classifier=recipe)
    began = time.process_time()
    model = train_video_classifier(
        run, features, train_ids, labels, annotations.classes, settings, inputs_of(config.data, features)
    )
    seconds = (time.process_time() - began) / recipe.epochs
    score_NC = np.stack([model.video_scores(features.read(video_id)) for video_id in test_ids])
    write_tags(run.path / "tags.json", tags_of(annotations.classes, test_ids, score_NC, features))
    result = {
        "scores": score_NC.tolist(),
        "labels": label_matrix(labels, test_ids, annotations.classes).tolist(),
        "parameters": sum(weight.numel() for weight in model.model.parameters()),
        "seconds": seconds,
        "epochs": recipe.epochs,
    }
    write_json(kept, result, indent=None)
    return result


def tags_of(classes: tuple[str, ...], ids: list[str], score_NC: np.ndarray, features: FeatureSet) -> Tags:
    """Scores as a file of tags, so that the run can be reported and can choose a localizer's classes."""
    videos = {
        video_id: VideoTags(dict(zip(classes, score_C.tolist(), strict=True)), features.duration(video_id))
        for video_id, score_C in zip(ids, score_NC, strict=True)
    }
    return Tags(classes, videos)


def class_choice(options: argparse.Namespace, rows: dict[str, list[tuple[str, ...]]]) -> str:
    """What a localizer finds where each row's tags choose the classes of the videos: F1 of the chosen classes, and
    average mAP. A row of several runs has the mean of their tags."""
    run = RunFolder(options.localizer)
    own = open_run(run)
    videos = videos_of(own.config, own.annotations, open_features(own.config.data))
    truth, settings = videos.truth.videos, own.config.evaluation

    def found(localizer: Localizer, true_classes: bool = False) -> tuple[float, float]:
        right = chosen = wanted = 0
        detections = {}
        for video_id, scores in localizer.stored("ours", videos.ids):
            labels = set(truth[video_id].labels)
            indices = choose_classes(scores.video_C, localizer.config.inference)
            picked = labels if true_classes else {localizer.classes[c] for c in indices}
            right, chosen, wanted = right + len(picked & labels), chosen + len(picked), wanted + len(labels)
            detections[video_id] = localizer.detect_one(scores, truth[video_id].labels if true_classes else None)
        average = detection_map(videos.truth, detections, settings.protocol, settings.tiou).average_mAP
        return 100 * 2 * right / (chosen + wanted), 100 * average

    def by(file: Path) -> tuple[float, float]:
        return found(open_run(run, [f"inference.class_tags={file}"]))

    lines = []
    for name, members in rows.items():
        files = [tags_file(options, members, seed) for seed in range(options.seeds)]
        lines.append([name, *(cell(values) for values in zip(*map(by, files), strict=True))])
    for name, known in (("its own rows", False), ("the true classes", True)):
        lines.append([name, *(f"{value:.1f}" for value in found(own, known))])
    return markdown_table(["classes of the localizer by", "F1 of the classes", "average mAP"], lines)


def tags_file(options: argparse.Namespace, members: list[tuple[str, ...]], seed: int) -> Path:
    """The tags of one run, or the mean of several runs' tags, which is written beside them."""
    folders = [folder_of(options, (row, seed)).path for row in members]
    if len(folders) == 1:
        return folders[0] / "tags.json"
    parts = [read_tags(folder / "tags.json") for folder in folders]
    videos = {
        video_id: VideoTags(
            {name: float(np.mean([part.videos[video_id].scores[name] for part in parts])) for name in own.scores},
            own.duration,
        )
        for video_id, own in parts[0].videos.items()
    }
    path = options.out / f"mean-{hash8([str(folder) for folder in folders])}.json"
    write_tags(path, Tags(parts[0].classes, videos))
    return path


def measured(results: list[dict]) -> dict[str, float]:
    """Measures of the mean of several runs' scores on the same videos."""
    score_NC = np.mean([result["scores"] for result in results], axis=0)
    return tagging_metrics(score_NC, np.array(results[0]["labels"])).as_dict()


def line(name: str, seeds: list[dict[str, float]], more: list[str] | None = None) -> list[str]:
    """A row of a table: mean and deviation over seeds, percent."""
    return [name, *(cell([100 * found[key] for found in seeds]) for key in MEASURES), *(more or [])]


def cell(values: Sequence[float]) -> str:
    """Mean and sample standard deviation; of one value 0."""
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at once")
    parser.add_argument("--only", default=",".join([*ROWS, "ensembles"]), help="tables, parted by commas")
    parser.add_argument("--localizer", type=Path, metavar="RUN", help="a run whose classes the rows of streams choose")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="settings of all rows")
    options = parser.parse_args()
    wanted = options.only.split(",")
    rows = {name: row for table in ROWS if table in wanted for name, row in ROWS[table].items()}
    if "ensembles" in wanted:
        every = {name: row for table in ROWS.values() for name, row in table.items()}
        rows |= {name: every[name] for names in ENSEMBLES.values() for name in names}
    # one row may stand in several tables
    jobs = list(dict.fromkeys((row, seed) for seed in range(options.seeds) for row in rows.values()))
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        done = pool.map(partial(trained, options), jobs)
        made = dict(zip(jobs, progress(done, desc="train", total=len(jobs), unit="run"), strict=True))
    found = {(name, seed): made[row, seed] for name, row in rows.items() for seed in range(options.seeds)}
    for table in (table for table in ROWS if table in wanted):
        header, lines = [table, *MEASURES.values()], []
        for name in ROWS[table]:
            runs = [found[name, seed] for seed in range(options.seeds)]
            cost = [f"{runs[0]['parameters']}", f"{1000 * np.median([run['seconds'] for run in runs]):.0f}"]
            lines.append(line(name, [measured([run]) for run in runs], cost))
        if table == "streams":
            for name in JOINED:
                members = [[found[own, seed] for own in ENSEMBLES[name]] for seed in range(options.seeds)]
                lines.append(line(name, [measured(runs) for runs in members], ["", ""]))
        print(markdown_table([*header, "parameters", "ms an epoch"], lines), end="\n\n")
    if "ensembles" in wanted:
        lines = [
            line(title, [measured([found[name, seed] for name in names]) for seed in range(options.seeds)])
            for title, names in ENSEMBLES.items()
        ]
        everything = [measured([found[ENSEMBLES["one run"][0], seed] for seed in range(options.seeds)])]
        lines.append(line(f"one run, mean of its {options.seeds} seeds", everything))
        print(markdown_table(["mean of", *MEASURES.values()], lines), end="\n\n")
    if options.localizer:
        chosen = {name: [name] for name in ROWS["streams"]} | {name: ENSEMBLES[name] for name in JOINED}
        known = {name: [rows[own] for own in names] for name, names in chosen.items() if rows.keys() >= set(names)}
        print(class_choice(options, known), end="\n\n")
    spent = sum(run["seconds"] * run["epochs"] for run in made.values())
    print(f"{options.seeds} seeds; {spent:.0f} CPU seconds of training on {platform.machine()}")


if __name__ == "__main__":
    main()
