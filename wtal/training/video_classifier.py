"""Training a video-level classifier (NetVLAD family) alone, and its scores of videos.

    FOLDER/settings.json  classes, stream widths, all settings
    FOLDER/state.pt       model, optimiser, finished epochs
    FOLDER/metrics.jsonl  a line an epoch
    FOLDER/summary.json   tagging metrics on the test videos

A killed training goes on from the last finished epoch and ends in the same bits: which videos and which crops
a step sees is a function of seed and step.
Legend: B videos, T snippets, D feature width, C classes, N videos.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from feature_extraction.errors import RunFailure, UserError
from feature_extraction.files import atomic_write, read_json, write_json
from feature_extraction.progress import progress
from wtal.config.strict import build, plain
from wtal.datasets.features import FeatureSet
from wtal.evaluation.classification import tagging_metrics
from wtal.inference.scores import VideoScores
from wtal.models.losses import class_summed_loss
from wtal.models.video_classifier.network import VideoClassifier, VideoClassifierSettings
from wtal.training.data import TrainingVideos, label_matrix
from wtal.training.folder import load_checkpoint


@dataclass(frozen=True, kw_only=True)
class VideoClassifierTraining:
    """The model and how it is trained."""

    model: VideoClassifierSettings = field(default_factory=VideoClassifierSettings)
    """The network."""
    epochs: int = 60
    """Times that every training video is seen."""
    batch: int = 32
    """Videos in a step (the paper: 80)."""
    snippets: int = 400
    """Longest crop of a training video, in snippets; at test the whole video is used."""
    lr: float = 2e-3
    """Adam's learning rate (the paper: 2e-4 over 5 million videos)."""
    lr_decay: float = 0.97
    """Factor on the learning rate after each epoch."""
    clip_norm: float = 1.0
    """Gradients are scaled to at most this norm."""
    weight_decay: float = 1e-6
    """L2 penalty on the classifier behind the pooling."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "snippets"):
            if getattr(self, name) < 1:
                raise UserError(f"video classifier: {name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "lr_decay", "clip_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"video classifier: {name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainedVideoClassifier:
    """A trained model with what it was trained on."""

    model: VideoClassifier
    classes: tuple[str, ...]
    streams: tuple[str, ...]

    @torch.no_grad()
    def video_scores(self, feature: Mapping[str, np.ndarray]) -> np.ndarray:
        """Class probabilities `[C]` of one video from its streams `[T, D]`."""
        self.model.eval()
        feature_TD = np.concatenate([np.asarray(feature[name], np.float32) for name in self.streams], axis=1)
        mask_BT = torch.ones(1, len(feature_TD), dtype=torch.bool)
        return self.model(torch.from_numpy(feature_TD)[None], mask_BT).log_p_BC[0].exp().numpy()


def train_video_classifier(
    folder: Path,
    features: FeatureSet,
    train_ids: list[str],
    labels: Mapping[str, Iterable[str]],
    classes: tuple[str, ...],
    settings: VideoClassifierTraining,
    seed: int = 0,
) -> TrainedVideoClassifier:
    """Train (or finish training) in `folder`. Raises `UserError` where the folder holds other settings,
    `RunFailure` where the loss is no longer finite."""
    streams = tuple(features.dims)
    _open(folder, _description(features, classes, settings, seed, train_ids))
    videos = TrainingVideos(features, train_ids, label_matrix(labels, train_ids, classes))
    torch.manual_seed(seed)
    model = VideoClassifier(settings.model, tuple(features.dims.values()), len(classes))
    behind = list(model.classifier.parameters())
    apart = {id(parameter) for parameter in behind}
    optimizer = torch.optim.Adam(
        [
            {"params": [p for p in model.parameters() if id(p) not in apart]},
            {"params": behind, "weight_decay": settings.weight_decay},
        ],
        settings.lr,
    )
    done = 0
    if (folder / "state.pt").is_file():
        done = _restore(folder / "state.pt", model, optimizer)
    steps = math.ceil(len(videos) / settings.batch)
    model.train()
    epochs = range(done, settings.epochs)
    for epoch in progress(epochs, initial=done, total=settings.epochs, desc="train", unit="epoch"):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * settings.lr_decay**epoch
        total = 0.0
        for step in range(epoch * steps, (epoch + 1) * steps):
            chosen = videos.shuffled(seed, step, min(settings.batch, len(videos)))
            snippets = videos.crops(chosen, seed, step, settings.snippets, "consecutive")
            batch = videos.batch(chosen, snippets, slice(None), streams)
            optimizer.zero_grad()
            feature_BTD = torch.cat([batch.feature[name] for name in streams], dim=2)
            loss = class_summed_loss(model(feature_BTD, batch.mask_BT), batch.label_BC)
            if not torch.isfinite(loss):
                raise RunFailure(f"{folder}: the loss is not finite at step {step}; lower lr, or check the features")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            total += loss.item()
        _log(folder, epoch, {"epoch": epoch, "loss": total / steps, "lr": optimizer.param_groups[0]["lr"]})
        with atomic_write(folder / "state.pt") as stream:
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1},
                stream,
            )
    return TrainedVideoClassifier(model.eval(), classes, streams)


def load_video_classifier(folder: Path) -> TrainedVideoClassifier:
    """What `train_video_classifier` left in `folder`. Raises `UserError` for a folder that is none or
    unfinished."""
    folder = Path(folder)
    description = read_json(folder / "settings.json")
    try:
        settings = build(VideoClassifierTraining, description["settings"])
        classes, dims = tuple(description["classes"]), dict(description["streams"])
        model = VideoClassifier(settings.model, tuple(dims.values()), len(classes))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}/settings.json: not of a video classifier ({_reason(error)})") from None
    if not (folder / "state.pt").is_file():
        raise UserError(f"{folder}: no state.pt; finish `wtal train-video-classifier` first")
    epochs = _restore(folder / "state.pt", model)
    if epochs < settings.epochs:
        raise UserError(
            f"{folder}: trained {epochs} of {settings.epochs} epochs; run `wtal train-video-classifier` again"
        )
    return TrainedVideoClassifier(model.eval(), classes, tuple(dims))


def _restore(path: Path, model: VideoClassifier, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Put the saved weights, and the optimiser's state where one is given, in place; returns the finished epochs.

    Raises `UserError` for a file that is damaged or of another network.
    """
    try:
        state = load_checkpoint(path)
        model.load_state_dict(state["model"])
        if optimizer is not None:
            optimizer.load_state_dict(state["optimizer"])
        return int(state["epochs"])
    except UserError as error:
        reason = str(error).removeprefix(f"{path}: ")
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = _reason(error)
    raise UserError(
        f"{path}: not the state of this video classifier ({reason}); delete it, and `wtal train-video-classifier` "
        "trains it from the start"
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def replace_video_scores(
    scores: Mapping[str, VideoScores],
    classifier: TrainedVideoClassifier,
    features: FeatureSet,
    classes: tuple[str, ...],
    weight: float = 1.0,
) -> dict[str, VideoScores]:
    """The scores with each video's class probabilities mixed: `weight` of the classifier, the rest of the
    branch.

    Frame scores stay. Raises `UserError` where the classifier knows other classes or streams.
    """
    if classifier.classes != tuple(classes):
        raise UserError("the video classifier was trained on other classes than these scores have")
    if missing := [name for name in classifier.streams if name not in features.dims]:
        raise UserError(
            f"the video classifier needs stream {missing[0]!r}; data.streams has {', '.join(features.dims)}"
        )
    return {
        video_id: replace(
            own,
            video_C=((1 - weight) * own.video_C + weight * classifier.video_scores(features.read(video_id))).astype(
                np.float32
            ),
        )
        for video_id, own in scores.items()
    }


def measure_video_classifier(
    trained: TrainedVideoClassifier, features: FeatureSet, ids: list[str], labels: Mapping[str, Iterable[str]]
) -> dict[str, float]:
    """Tagging metrics (GAP@20, hit@1, PERR, video mAP) on the videos `ids`."""
    score_NC = np.stack([trained.video_scores(features.read(video_id)) for video_id in ids])
    return tagging_metrics(score_NC, label_matrix(labels, ids, trained.classes)).as_dict()


def _description(
    features: FeatureSet,
    classes: tuple[str, ...],
    settings: VideoClassifierTraining,
    seed: int,
    ids: list[str],
) -> dict:
    streams = {name: stream.folder.name for name, stream in features.streams.items()}
    return {
        "classes": list(classes),
        "streams": dict(features.dims),
        "stores": streams,
        "settings": plain(settings),
        "seed": seed,
        "videos": len(ids),
    }


def _open(folder: Path, description: dict) -> None:
    path = folder / "settings.json"
    if path.is_file():
        before = read_json(path)
        if different := [key for key in description if before.get(key) != description[key]]:
            raise UserError(f"{folder}: holds a training with other {different[0]}; choose another --out")
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: not empty and no video classifier; choose another --out")
    else:
        write_json(path, description)


def _log(folder: Path, epoch: int, entry: dict) -> None:
    path = folder / "metrics.jsonl"
    # a kill between this line and the checkpoint leaves a line that the repeated epoch replaces
    lines = path.read_text().splitlines()[:epoch] if path.is_file() else []
    with atomic_write(path, "w") as stream:
        stream.write("\n".join([*lines, json.dumps(entry)]) + "\n")
