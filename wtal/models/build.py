"""Settings to built branches: the one place that knows which class a name stands for.

Legend: C classes, D feature width.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from feature_extraction.clip import FrozenClip
from feature_extraction.errors import UserError
from wtal.models.branch import BranchOutput
from wtal.models.cbp.backbones import ConvolutionBackbone, MultiScaleBackbone, TransformerBackbone
from wtal.models.cbp.consensus import ConsensusNet
from wtal.models.cbp.evidential import EvidentialNet
from wtal.models.cbp.magnitude import MagnitudeNet
from wtal.models.cbp.pooled import PooledCBP
from wtal.models.fusion import AverageStreams, ConcatenateStreams
from wtal.models.pooling import make_pooling
from wtal.models.prompts import FixedText, LearnedPrompts, precomputed_embeddings, template_embeddings
from wtal.models.settings import CBPSettings, VLPSettings
from wtal.models.several import SeveralVLP
from wtal.models.vlp import VLP

BACKBONES: dict[str, Callable[[CBPSettings, int], nn.Module]] = {
    "transformer": lambda s, width_in: TransformerBackbone(
        width_in, s.width, s.layers, s.heads, s.window, s.dropout_in, s.dropout_out
    ),
    "convolution": lambda s, width_in: ConvolutionBackbone(width_in, s.width, s.kernel, s.dropout_in, s.dropout_out),
    "multiscale": lambda s, width_in: MultiScaleBackbone(width_in, s.width, s.dilations, s.dropout_in, s.dropout_out),
}


CONSENSUS_WEIGHTS = {"mil": 1.0, "coactivity": 1.0, "mutual": 1.0, "norm": 0.8, "guide": 0.8}
EVIDENTIAL_WEIGHTS = CONSENSUS_WEIGHTS | {"guide": 0.4, "evidential": 1.3, "uncertainty": 0.4}


def _consensus(settings: CBPSettings, width_in: int, num_classes: int, weights: dict[str, float]) -> ConsensusNet:
    if len(settings.streams) != 2 or width_in % 2:
        raise UserError(
            f"cbp.name {settings.name!r} needs two streams of equal width, got streams {', '.join(settings.streams)} "
            f"of {width_in} together"
        )
    return ConsensusNet(width_in // 2, num_classes, settings.activation, weights=weights)


# The published methods of Table 6, with their published loss weights (THUMOS14).
PLUG_INS: dict[str, Callable[[CBPSettings, int, int], nn.Module]] = {
    "co2net": lambda s, width_in, c: _consensus(s, width_in, c, CONSENSUS_WEIGHTS),
    "delu": lambda s, width_in, c: EvidentialNet(_consensus(s, width_in, c, EVIDENTIAL_WEIGHTS)),
    "um": lambda s, width_in, c: MagnitudeNet(width_in, s.width, c, s.activation, margin=s.um_margin),
}


class StreamedBranch(nn.Module):
    """A branch with its input streams: picks, scales and joins them, then runs `branch` on `[B, T, D]`."""

    def __init__(self, streams: Sequence[str], norm: nn.Module, join: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.streams = tuple(streams)
        self.norm, self.join, self.branch = norm, join, branch
        self.feature_dim = branch.feature_dim
        self.pair_sampling = getattr(branch, "pair_sampling", False)

    def once(self) -> Tensor | None:
        """What the branch makes of its weights alone (class texts); none where there is no such thing."""
        return self.branch.once() if hasattr(self.branch, "once") else None

    def forward(self, feature: Mapping[str, Tensor], mask_BT: Tensor, made: Tensor | None = None) -> BranchOutput:
        """`made`: what `once` returned, to save its work where many batches meet the same weights."""
        joined_BTD = self.join([self.norm(name, feature[name]) for name in self.streams])
        return self.branch(joined_BTD, mask_BT) if made is None else self.branch(joined_BTD, mask_BT, made)


class StandardNorm(nn.Module):
    """Each stream scaled by mean and deviation per dimension, measured once on the training videos."""

    def __init__(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        for name, (mean_D, deviation_D) in statistics.items():
            self.register_buffer(f"{name}_mean_D", mean_D)
            self.register_buffer(f"{name}_deviation_D", deviation_D)

    def forward(self, name: str, x_BTD: Tensor) -> Tensor:
        return (x_BTD - getattr(self, f"{name}_mean_D")) / getattr(self, f"{name}_deviation_D")


class UnitNorm(nn.Module):
    """Each snippet's feature scaled to length sqrt(D), so that its entries stay near 1."""

    def forward(self, name: str, x_BTD: Tensor) -> Tensor:
        return nn.functional.normalize(x_BTD, dim=-1) * x_BTD.shape[-1] ** 0.5


class NoNorm(nn.Module):
    """Features as they are."""

    def forward(self, name: str, x_BTD: Tensor) -> Tensor:
        return x_BTD


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
    if settings.early_fusion != "none" and vlp_stream not in streams:
        streams.append(vlp_stream)
    for name in streams:
        if name not in dims:
            raise UserError(f"cbp.streams names {name!r}, but the feature store has: {', '.join(dims)}")
    norms = {"none": NoNorm, "l2": UnitNorm, "standard": lambda: StandardNorm(statistics or _unit(streams, dims))}
    if settings.early_fusion == "average":
        own = ConcatenateStreams(tuple(dims[name] for name in settings.streams))
        join: nn.Module = _AverageWith(own, dims[vlp_stream])
    else:
        join = ConcatenateStreams(tuple(dims[name] for name in streams))
    if settings.name in BACKBONES:
        backbone = BACKBONES[settings.name](settings, join.feature_dim)
        pooling = make_pooling(settings.pooling, num_classes, backbone.feature_dim)
        branch: nn.Module = PooledCBP(
            backbone, pooling, num_classes, settings.activation, typical_length, settings.instance_weight
        )
    else:
        branch = PLUG_INS[settings.name](settings, join.feature_dim, num_classes)
    return StreamedBranch(streams, norms[settings.input_norm](), join, branch)


class _AverageWith(nn.Module):
    """I3D streams side by side, averaged with a linear map of the last stream."""

    def __init__(self, own: ConcatenateStreams, width: int) -> None:
        super().__init__()
        self.own, self.average = own, AverageStreams((own.feature_dim, width))
        self.feature_dim = own.feature_dim

    def forward(self, streams: list[Tensor]) -> Tensor:
        return self.average([self.own(streams[:-1]), streams[-1]])


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
    """Class embeddings `[C, D]` without training: from the file, else from the template through the text tower."""
    if settings.text_embeddings:
        return precomputed_embeddings(Path(settings.text_embeddings), class_names)
    return template_embeddings(clip, class_names, settings.template)


def build_raw_vlp(width: int, text_CD: Tensor, scale: float, stream: str) -> StreamedBranch:
    """Frozen CLIP as a branch: cosine of each frame with each class text, nothing trained (row `vlp_raw`)."""
    branch = VLP(FixedText(text_CD), width, 0, 1, 0, 0.0, scale, False, None, "softmax")
    return StreamedBranch((stream,), NoNorm(), ConcatenateStreams((width,)), branch)
