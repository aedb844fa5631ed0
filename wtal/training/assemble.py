"""From a configuration to built parts: features, annotations, branches. Nothing here trains or predicts.

Legend: N videos, C classes, D feature width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feature_extraction.clip import FrozenClip, load_clip
from feature_extraction.errors import UserError
from wtal.config import Config
from wtal.datasets.features import FeatureSet
from wtal.models.build import StreamedBranch, build_cbp, build_raw_vlp, build_vlp, fixed_text, join_vlps
from wtal.models.settings import VLPSettings
from wtal.shipped import resolve


@dataclass(frozen=True)
class Branches:
    """The networks of a run. `raw_vlp` is frozen CLIP with a fixed text. A run of the CBP branch alone on features
    without CLIP's has neither VLP."""

    cbp: StreamedBranch
    vlp: StreamedBranch | None
    raw_vlp: StreamedBranch | None


def pick_device(name: str) -> torch.device:
    """The device that `training.device` means. Raises `UserError` for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"training.device {name!r} cannot be used ({str(error).splitlines()[0]})") from None
    return device


def has_vlp(config: Config) -> bool:
    """Whether the run has a VLP branch: only a warm-up on features without its stream goes without."""
    streams = {name.split("-")[0] for name in config.data.streams}
    return config.vlp.stream.split("-")[0] in streams or config.schedule.strategy != "warmup_only"


def build_branches(
    config: Config, features: FeatureSet, classes: Sequence[str], train_ids: Sequence[str] = ()
) -> Branches:
    """Both branches with fresh weights drawn from the seed, and frozen CLIP.

    `train_ids`: videos that input statistics and first biases are measured on; none where a checkpoint will be
    loaded, which holds them. The text tower is loaded only where texts are not precomputed.
    """
    torch.manual_seed(config.seed)
    dims = features.dims
    vlp = has_vlp(config)
    models = [config.vlp, *models_beside(config)]
    for model in models if vlp else ():
        if model.stream not in dims:
            raise UserError(f"vlp.stream {model.stream!r} is not in the feature store, which has: {', '.join(dims)}")
    statistics = None
    if config.cbp.input_norm == "standard" and train_ids:
        own = [*config.cbp.streams, *([config.vlp.stream] if config.cbp.early_fusion != "none" else [])]
        statistics = stream_statistics(features, train_ids, own)
    typical = float(np.median([min(features.length(v), config.optimizer.snippets) for v in train_ids] or [100]))
    cbp = build_cbp(config.cbp, dims, len(classes), config.vlp.stream, typical, statistics)
    if not vlp:
        return Branches(cbp, None, None)
    towers = [(config.extraction.clip_model, config.extraction.clip_pretrained)]
    towers += [(more.clip_model, more.clip_pretrained) for more in config.vlp.more]
    built = [
        _vlp_of(model, tower, features, classes, train_ids) for model, tower in zip(models, towers, strict=True)
    ]
    return Branches(cbp, *(join_vlps(branches) for branches in zip(*built, strict=True)))


def models_beside(config: Config) -> list[VLPSettings]:
    """The models of `vlp.more`, each as settings of a branch of its own."""
    return [
        replace(
            config.vlp, stream=more.stream, text_embeddings=more.text_embeddings,
            scale=more.scale or config.vlp.scale, more=(),
        )
        for more in config.vlp.more
    ]  # fmt: skip


def _vlp_of(
    settings: VLPSettings,
    tower: tuple[str | None, str | None],
    features: FeatureSet,
    classes: Sequence[str],
    train_ids: Sequence[str],
) -> tuple[StreamedBranch, StreamedBranch]:
    """A trainable VLP branch of one model, and the same frozen."""
    clip = None if settings.text == "precomputed" else text_tower(*tower)
    width = features.dims[settings.stream]
    if clip is not None and clip.embed_dim != width:
        raise UserError(
            f"stream {settings.stream!r} has width {width}, but the text tower {tower[0]!r} "
            f"gives {clip.embed_dim}; set extraction.clip_model to the model that made the features"
        )
    scale = settings.scale or (clip.logit_scale if clip is not None else 100.0)
    text_CD = fixed_text(settings, classes, clip)
    bias_start = -scale * mean_cosine(features, train_ids, settings.stream, text_CD)
    branch = build_vlp(settings, width, classes, clip, bias_start, scale)
    return branch, build_raw_vlp(width, text_CD, scale, settings.stream)


def text_tower(model: str, pretrained: str | None) -> FrozenClip:
    """A CLIP model, for its text side."""
    return load_clip(resolve(model), pretrained and resolve(pretrained), torch.device("cpu"))


def stream_statistics(
    features: FeatureSet, ids: Sequence[str], streams: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and deviation `[D]` of each stream over the snippets of `ids`, one video in memory at a time."""
    statistics = {}
    for name in dict.fromkeys(streams):
        count, total_D, square_D = 0, 0.0, 0.0
        for video_id in ids:
            x_TD = np.asarray(features.read(video_id)[name], dtype=np.float64)
            count += len(x_TD)
            total_D = total_D + x_TD.sum(0)
            square_D = square_D + (x_TD**2).sum(0)
        mean_D = total_D / max(count, 1)
        deviation_D = np.sqrt(np.maximum(square_D / max(count, 1) - mean_D**2, 1e-6))
        statistics[name] = (torch.from_numpy(mean_D).float(), torch.from_numpy(deviation_D).float())
    return statistics


def mean_cosine(features: FeatureSet, ids: Sequence[str], stream: str, text_CD: Tensor) -> float:
    """Mean cosine of the training snippets with the class texts."""
    text_CD = torch.nn.functional.normalize(text_CD, dim=-1)
    total, count = 0.0, 0
    for video_id in ids:
        x_TD = torch.from_numpy(np.asarray(features.read(video_id)[stream], dtype=np.float32))
        cosine_TC = torch.nn.functional.normalize(x_TD, dim=-1) @ text_CD.T
        total += cosine_TC.sum().item()
        count += cosine_TC.numel()
    return total / max(count, 1)


def open_features(config: Config, store: Path | None = None) -> FeatureSet:
    """The feature store of `data.features`, or another one, of new videos."""
    if store is None and not config.data.features:
        raise UserError("data.features is not set; name the feature store that `wtal extract` wrote")
    return FeatureSet(store or Path(config.data.features), config.data.streams, config.data.features_prefix)
