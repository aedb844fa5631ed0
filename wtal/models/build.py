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
from wtal.models.published_settings import ConsensusSettings, EvidentialSettings, loss_weights
from wtal.models.settings import CBPSettings, VLPSettings
from wtal.models.several import SeveralVLP
from wtal.models.vlp import VLP

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
