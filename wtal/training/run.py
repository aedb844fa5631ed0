"""`wtal train` as a function: configuration in, trained run folder out; the same call again goes on or is done."""

import contextlib
from pathlib import Path

import torch

from feature_extraction.errors import UserError
from feature_extraction.networks.towers import pick_device
from wtal.config.data import DataSettings
from wtal.config.groups import RunSettings
from wtal.datasets.annotations import AnnotationSet
from wtal.datasets.features import FeatureSet, available, open_features
from wtal.datasets.formats.by_name import load_annotations
from wtal.datasets.splits import split
from wtal.models.build import build_branches
from wtal.models.streams import StreamedBranch
from wtal.training.data import TrainingVideos, label_matrix
from wtal.training.folder import RunFolder, file_input
from wtal.training.lock import hold
from wtal.training.map_supervision import map_supervision
from wtal.training.processes import Processes, join_processes, leave_processes
from wtal.training.quality import PhaseQuality, Tracker
from wtal.training.semi import semi_supervision
from wtal.training.statistics import measure, start_at_mean
from wtal.training.student import Student, make_student
from wtal.training.trainer import Trainer


def train(config: RunSettings) -> tuple[RunFolder, list[str]]:
    """Train (or finish training) the run that `config` describes, in `config.out`.

    Returns the run folder and the ids of training videos left out because their features are missing (only with
    `data.missing: skip`). Raises `UserError` for anything wrong with the inputs, `RunFailure` where training breaks.
    """
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    device = pick_device(config.training.device, kinds=())
    processes = join_processes(device)
    try:
        return _train(config, device, processes)
    finally:
        leave_processes(processes)


def _train(config: RunSettings, device: torch.device, processes: Processes) -> tuple[RunFolder, list[str]]:
    annotations = load_annotations(config.data)
    features = open_features(config.data)
    parts = split(annotations, config.data)
    train_ids, missing = available(features, sorted(parts.train.videos), config.data.missing)
    held_out, also_missing = available(features, sorted(parts.held_out.videos), config.data.missing)
    if config.training.select == "held_out" and not held_out:
        raise UserError("training.select is 'held_out', but no training video is: set data.held_out, e.g. to 0.2")
    videos = training_videos(features, annotations, train_ids)
    statistics = measure(config, features, train_ids, config.optimizer.snippets)
    branches = build_branches(config, features, annotations.classes, statistics)
    if branches.vlp is not None:
        start_at_mean(branches, features, train_ids)
    beside, lacking = semi_supervision(config, features, annotations, videos)
    students = {"cbp": _student(config, branches.cbp.to(device), config.optimizer.lr, config.semi.consistency > 0)}
    if branches.vlp is not None:
        students["vlp"] = _student(config, branches.vlp.to(device), config.optimizer.vlp_lr)
        branches.raw_vlp.to(device)
    boxes = map_supervision(config, features, train_ids)
    quality = PhaseQuality(features, annotations, train_ids, config.pseudo_labels.high, held_out)
    run = RunFolder(Path(config.out))
    tracker = Tracker(run.path, config.training.tensorboard and processes.first)
    trainer = Trainer(
        config, run, videos, students, branches.raw_vlp, quality, tracker, processes, device, beside, boxes
    )
    # only now, when nothing is wrong with the inputs, is anything written
    with hold(run.path) if processes.first else contextlib.nullcontext():
        if processes.first:
            run.open(config, inputs_of(config.data, features), config.seed)
        processes.wait()
        trainer.fit()
        tracker.close()
    return run, [*missing, *also_missing, *lacking]


def _student(config: RunSettings, branch: StreamedBranch, lr: float, averaged: bool = False) -> Student:
    settings = config.optimizer
    averaged = averaged or config.pseudo_labels.ema > 0
    return make_student(branch, lr, settings.weight_decay, averaged, settings.algorithm)


def training_videos(features: FeatureSet, annotations: AnnotationSet, ids: list[str]) -> TrainingVideos:
    """Training videos with their labels."""
    labels = {video_id: annotations.videos[video_id].labels for video_id in ids}
    return TrainingVideos(features, ids, label_matrix(labels, ids, annotations.classes))


def inputs_of(data: DataSettings, features: FeatureSet) -> dict[str, str]:
    """What the run reads, by hash: the annotation file and each feature stream's identity."""
    annotations = Path(data.annotations)
    inputs = {"annotations": file_input(annotations) if annotations.is_file() else str(annotations)}
    more = {"strong": data.strong, "unlabelled": data.unlabelled, "boxes": data.boxes}
    inputs |= {name: file_input(Path(path)) for name, path in more.items() if path}
    for name, stream in features.streams.items():
        said = f", {features.resampled[name]}" if name in features.resampled else ""
        inputs[f"features.{name}"] = stream.folder.name + said
    return inputs
