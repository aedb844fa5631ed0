"""Settings to built branches: the one place that knows which class a name stands for.

Legend: C classes, D feature width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from feature_extraction.errors import UserError
from feature_extraction.networks.clip import FrozenClip, load_clip
from wtal.config.load import Config
from wtal.config.models import CBPSettings, ConsensusSettings, EvidentialSettings, VLPSettings, loss_weights
from wtal.config.shipped import resolve
from wtal.datasets.features import FeatureSet
from wtal.models.cbp.co2net import ConsensusNet
from wtal.models.cbp.delu import EvidentialNet
from wtal.models.cbp.pooled import ConvolutionBackbone, MultiScaleBackbone, PooledCBP, TransformerBackbone
from wtal.models.cbp.um import MagnitudeNet
from wtal.models.pooling.head import make_pooling
from wtal.models.streams import ConcatenateStreams, NoNorm, StandardNorm, StreamedBranch, UnitNorm, _AverageWith
from wtal.models.vlp import VLP, FixedText, LearnedPrompts, SeveralVLP, precomputed_embeddings, template_embeddings

BACKBONES: dict[str, Callable[[CBPSettings, int], nn.Module]] = {
    "transformer": lambda s, width_in: TransformerBackbone(
        width_in, s.width, s.layers, s.heads, s.window, *_dropouts(s)
    ),
    "convolution": lambda s, width_in: ConvolutionBackbone(width_in, s.width, s.kernel, *_dropouts(s)),
    "multiscale": lambda s, width_in: MultiScaleBackbone(width_in, s.width, s.dilations, *_dropouts(s)),
}


def _dropouts(settings: CBPSettings) -> tuple[float, float]:
    """On the input and on the features: as set, else what the own architectures or the published methods have."""
    own = (0.0, 0.7) if settings.name in PLUG_INS else (0.5, 0.6)
    return tuple(
        default if value is None else value
        for value, default in zip((settings.dropout_in, settings.dropout_out), own, strict=True)
    )


def _consensus(
    settings: CBPSettings, widths: Sequence[int], num_classes: int, own: ConsensusSettings | EvidentialSettings
) -> ConsensusNet:
    if len(widths) != 2 or widths[0] != widths[1]:
        raise UserError(
            f"cbp.name {settings.name!r} needs two streams of equal width, got "
            + ", ".join(f"{name} of {width}" for name, width in zip(settings.streams, widths, strict=True))
        )
    dropout_in, dropout_out = _dropouts(settings)
    return ConsensusNet(
        widths[0],
        num_classes,
        settings.activation,
        weights=loss_weights(own),
        topk_ratio=own.topk_ratio,
        smooth=own.smooth,
        input_dropout=dropout_in,
        fusion_dropout=dropout_out,
    )


def _evidential(settings: CBPSettings, widths: Sequence[int], num_classes: int) -> EvidentialNet:
    own = settings.delu
    network = _consensus(settings, widths, num_classes, own)
    return EvidentialNet(network, amplitude=own.amplitude, attention_ratio=own.attention_ratio)


def _magnitude(settings: CBPSettings, width_in: int, num_classes: int) -> MagnitudeNet:
    own = settings.um
    dropout_in, dropout_out = _dropouts(settings)
    return MagnitudeNet(
        width_in,
        num_classes,
        settings.activation,
        width=own.width,
        margin=own.margin if settings.um_margin is None else settings.um_margin,
        action_ratio=own.action_ratio,
        background_ratio=own.background_ratio,
        magnitude_weight=own.magnitude_weight,
        background_weight=own.background_weight,
        input_dropout=dropout_in,
        feature_dropout=dropout_out,
    )


# The published methods of Table 6: settings, widths of the I3D streams, width of the joined input, classes to network.
PLUG_INS: dict[str, Callable[[CBPSettings, Sequence[int], int, int], nn.Module]] = {
    "co2net": lambda s, widths, width_in, c: _consensus(s, widths, c, s.co2net),
    "delu": lambda s, widths, width_in, c: _evidential(s, widths, c),
    "um": lambda s, widths, width_in, c: _magnitude(s, width_in, c),
}


def build_cbp(
    settings: CBPSettings,
    dims: Mapping[str, int],
    num_classes: int,
    vlp_stream: str,
    typical_length: float = 100.0,
    statistics: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> StreamedBranch:
    """The CBP branch of `settings` for streams of widths `dims`. Raises `UserError` naming a stream that is not there.

    `typical_length`: snippets of a training crop. `statistics` (mean and deviation `[D]` per stream) is needed for
    `input_norm: standard`.
    """
    streams = list(settings.streams)
    if settings.early_fusion != "none":
        if vlp_stream in streams:
            raise UserError(
                f"cbp.early_fusion {settings.early_fusion!r} adds vlp.stream {vlp_stream!r}, which is in "
                "cbp.streams already"
            )
        streams.append(vlp_stream)
    for name in streams:
        if name not in dims:
            raise UserError(f"cbp.streams names {name!r}, but the feature store has: {', '.join(dims)}")
    own_widths = tuple(dims[name] for name in settings.streams)
    norms = {"none": NoNorm, "l2": UnitNorm, "standard": lambda: StandardNorm(statistics or _unit(streams, dims))}
    if settings.early_fusion == "average":
        join: nn.Module = _AverageWith(ConcatenateStreams(own_widths), dims[vlp_stream])
    else:
        join = ConcatenateStreams(tuple(dims[name] for name in streams))
    if settings.name in BACKBONES:
        backbone = BACKBONES[settings.name](settings, join.feature_dim)
        pooling = make_pooling(settings.pooling, num_classes, backbone.feature_dim)
        branch: nn.Module = PooledCBP(
            backbone, pooling, num_classes, settings.activation, typical_length, settings.instance_weight
        )
    else:
        branch = PLUG_INS[settings.name](settings, own_widths, join.feature_dim, num_classes)
    return StreamedBranch(streams, norms[settings.input_norm](), join, branch)


def _unit(streams: Sequence[str], dims: Mapping[str, int]) -> dict[str, tuple[Tensor, Tensor]]:
    # placeholders of the right shape, filled when a checkpoint is loaded
    return {name: (torch.zeros(dims[name]), torch.ones(dims[name])) for name in streams}


def build_vlp(
    settings: VLPSettings,
    width: int,
    class_names: Sequence[str],
    clip: FrozenClip | None,
    bias_start: float,
    scale: float,
) -> StreamedBranch:
    """The VLP branch for embeddings of `width`. `clip` may be None for precomputed texts.

    `bias_start`: where the learnt bias begins, ignored with `bias: none`.
    """
    if settings.layers and width % settings.heads:
        raise UserError(f"vlp.heads {settings.heads} does not divide {width}, the width of stream {settings.stream!r}")
    if settings.text == "learned":
        text: nn.Module = LearnedPrompts(clip, class_names, settings.prompt_length)
    else:
        text = FixedText(fixed_text(settings, class_names, clip))
    branch = VLP(
        text,
        width,
        settings.layers,
        settings.heads,
        settings.window,
        settings.dropout,
        scale,
        settings.learn_scale,
        bias_start if settings.bias == "learned" else None,
        settings.activation,
        width**0.5 if settings.input_length == "root_width" else 1.0,
    )
    return StreamedBranch((settings.stream,), NoNorm(), ConcatenateStreams((width,)), branch)


def join_vlps(branches: Sequence[StreamedBranch]) -> StreamedBranch:
    """VLP branches as one over all their streams; a single one is returned as it is."""
    if len(branches) == 1:
        return branches[0]
    streams = tuple(name for branch in branches for name in branch.streams)
    several = SeveralVLP([branch.branch for branch in branches])
    return StreamedBranch(streams, NoNorm(), ConcatenateStreams(tuple(several.widths)), several)


def fixed_text(settings: VLPSettings, class_names: Sequence[str], clip: FrozenClip | None) -> Tensor:
    """Class embeddings `[C, D]` without training: precomputed, else the template through the text tower."""
    if settings.text == "precomputed":
        return precomputed_embeddings(Path(settings.text_embeddings), class_names)
    return template_embeddings(clip, class_names, settings.template)


def build_raw_vlp(width: int, text_CD: Tensor, scale: float, stream: str) -> StreamedBranch:
    """Frozen CLIP as a branch: cosine of each frame with each class text, nothing trained (row `vlp_raw`)."""
    branch = VLP(FixedText(text_CD), width, 0, 1, 0, 0.0, scale, False, None, "softmax")
    return StreamedBranch((stream,), NoNorm(), ConcatenateStreams((width,)), branch)


@dataclass(frozen=True)
class Branches:
    """The networks of a run. `raw_vlp` is frozen CLIP with a fixed text. A run of the CBP branch alone on features
    without CLIP's has neither VLP."""

    cbp: StreamedBranch
    vlp: StreamedBranch | None
    raw_vlp: StreamedBranch | None


def has_vlp(config: Config) -> bool:
    """Whether the run has a VLP branch: only a warm-up goes without, on features that lack its stream or where that is
    the classification branch's own (then nobody asked for a text tower)."""
    if config.schedule.strategy != "warmup_only":
        return True
    streams = {name.split("-")[0] for name in config.data.streams}
    return config.vlp.stream.split("-")[0] in streams and config.vlp.stream not in config.cbp.streams


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
            raise UserError(
                f"vlp.stream {model.stream!r} is not among data.streams of the feature store ({', '.join(dims)}); set "
                "vlp.stream to one whose network has texts (with vlp.text=precomputed and vlp.text_embeddings=FILE "
                "where it is not the configured CLIP), or train the classification branch alone: "
                "schedule.strategy=warmup_only"
            )
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
    built = [_vlp_of(model, tower, features, classes, train_ids) for model, tower in zip(models, towers, strict=True)]
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
