"""Settings of the two branches. Where the paper is silent, the docstring of the field says what we decided."""

import math
from dataclasses import dataclass
from typing import Literal

from feature_extraction.errors import UserError
from wtal.models.pooling import POOLINGS
from wtal.models.pooling_settings import PoolingSettings
from wtal.models.published_settings import ConsensusSettings, EvidentialSettings, MagnitudeSettings
from wtal.strict import at_least

OWN = ("transformer", "convolution", "multiscale")
"""Architectures of the CBP branch that the pooling heads fit."""
PUBLISHED = ("co2net", "um", "delu")
"""Published methods among the architectures of the CBP branch: they pool scores over time in a way of their own."""


@dataclass(frozen=True, kw_only=True)
class CBPSettings:
    """The classification branch (I3D features in)."""

    name: Literal["transformer", "convolution", "multiscale", "co2net", "um", "delu"] = "transformer"
    """Architecture. `transformer` is the paper's; the last three are the published methods of Table 6, each with a
    group of settings of its name. Settings of one architecture may stay where another is chosen."""
    streams: tuple[str, ...] = ("rgb", "flow")
    """Feature streams, joined side by side in this order."""
    early_fusion: Literal["none", "average", "concatenation"] = "none"
    """Feed the VLP's stream to this branch too (the fair-comparison baseline)."""
    width: int = 512
    """Feature width of `transformer`, `convolution` and `multiscale`. Silent in the paper."""
    layers: int = 1
    """Transformer blocks (`transformer` only). Silent in the paper."""
    heads: int = 8
    """Attention heads (`transformer` only). Silent in the paper."""
    window: int = 4
    """Snippets to each side that attention sees (`transformer` only); 0 is the whole video, where the frames learn the
    bag's label."""
    kernel: int = 3
    """Snippets under the convolution, an odd number (`convolution` only)."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Dilations of the `multiscale` convolutions, in snippets."""
    dropout_in: float | None = None
    """On the input features; the second guard of localisation. None: the architecture's own, 0.5, and 0 for the
    published methods."""
    dropout_out: float | None = None
    """On the features before the classifier. None: the architecture's own, 0.6, and 0.7 for the published methods."""
    input_norm: Literal["none", "standard", "l2"] = "none"
    """Scale the input: by the training videos' mean and deviation per dimension, or to unit length."""
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    """Frame probability for pseudo-labels, distillation and test. Silent in the paper; sigmoid keeps (4)'s
    thresholds meaningful frame by frame."""
    um: MagnitudeSettings = MagnitudeSettings()
    """UM."""
    um_margin: float | None = None
    """Former name of `um.margin`, which run folders of before have."""
    co2net: ConsensusSettings = ConsensusSettings()
    """CO2-Net."""
    delu: EvidentialSettings = EvidentialSettings()
    """DELU."""
    pooling: PoolingSettings = PoolingSettings()
    """Frame scores to video score; `topk` is equation (1). Not for the published methods."""

    instance_weight: float | None = None
    """lambda of the bag+instance loss (Zhou et al., 2017); none: the bag's cross-entropy alone. Heads of the
    probability space only."""

    def __post_init__(self) -> None:
        at_least("cbp", self, 1, "width", "heads", "kernel")
        at_least("cbp", self, 0, "layers", "window", "instance_weight")
        if self.kernel % 2 == 0:
            raise UserError(f"cbp.kernel must be an odd number of snippets, got {self.kernel}")
        if not self.dilations or min(self.dilations) < 1:
            raise UserError(
                f"cbp.dilations must be one or more numbers of at least 1, got {list(self.dilations)}"
            )
        if self.um_margin is not None and not 0 < self.um_margin < math.inf:
            raise UserError(f"cbp.um_margin must be a positive number, got {self.um_margin}")
        if self.um_margin is not None and self.um.margin is not None:
            raise UserError("cbp.um_margin is the former name of cbp.um.margin; set one of them")
        if self.name in PUBLISHED:
            self._refuse_what_published_methods_lack()
        if self.instance_weight is not None and POOLINGS[self.pooling.name].space == "logit" and not self.pooling.space:
            raise UserError(
                f"cbp.instance_weight needs frame probabilities; pooling {self.pooling.name!r} works on logits: set "
                "cbp.pooling.space=prob or another head"
            )
        if self.width % self.heads:
            raise UserError(f"cbp.width {self.width} is not a multiple of cbp.heads {self.heads}")
        if not self.streams:
            raise UserError("cbp.streams is empty; name at least one feature stream, for example [rgb, flow]")
        if len(set(self.streams)) < len(self.streams):
            raise UserError(f"cbp.streams names a stream twice: {', '.join(self.streams)}")
        for name in ("dropout_in", "dropout_out"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < 1:
                raise UserError(f"cbp.{name} must be in [0, 1), got {getattr(self, name)}")

    def _refuse_what_published_methods_lack(self) -> None:
        if self.pooling != PoolingSettings():
            raise UserError(
                f"cbp.pooling is for {', '.join(OWN)}; cbp.name {self.name!r} makes video scores in its own way: leave "
                "cbp.pooling out"
            )
        if self.instance_weight is not None:
            raise UserError(
                f"cbp.instance_weight is for {', '.join(OWN)}; cbp.name {self.name!r} has losses of its own: leave "
                "it out"
            )
        if self.name != "um" and self.early_fusion == "concatenation":
            raise UserError(
                f"cbp.early_fusion 'concatenation' does not fit cbp.name {self.name!r}, which compares two streams; "
                "use average or none"
            )


@dataclass(frozen=True, kw_only=True)
class MoreVLP:
    """One more vision-language model; everything that is not said here is the first one's."""

    stream: str
    """Its feature stream, as `clip-1a2b3c4d`."""
    clip_model: str | None = None
    """open_clip name or JSON file of the model that made the stream, for its text tower."""
    clip_pretrained: str | None = None
    """Its weights: an open_clip tag or a file."""
    text_embeddings: str | None = None
    """npz file with `names` and `embeddings`, for `text: precomputed`."""
    scale: float | None = None
    """Factor on the cosine; none: CLIP's own, or the first model's."""

    def __post_init__(self) -> None:
        _check_scale(f"vlp.more: scale of stream {self.stream!r}", self.scale)
        if not self.text_embeddings and not (self.clip_model and self.clip_pretrained):
            raise UserError(
                f"vlp.more: stream {self.stream!r} has no texts; set clip_model and clip_pretrained, or text_embeddings"
            )


@dataclass(frozen=True, kw_only=True)
class VLPSettings:
    """The vision-language branch (CLIP embeddings in)."""

    stream: str = "clip"
    """Feature stream."""
    text: Literal["learned", "template", "precomputed"] = "learned"
    """Class texts: learnt prompts (the paper), a fixed sentence, or embeddings from a file."""
    prompt_length: int = 16
    """Learnt vectors before and after the class name."""
    template: str = "a video of {}"
    """Sentence for `text: template`, and for frozen CLIP (the raw VLP) unless the texts are precomputed."""
    text_embeddings: str | None = None
    """npz file with `names` and `embeddings`, for `text: precomputed`."""
    layers: int = 2
    """Temporal transformer blocks."""
    heads: int = 8
    """Attention heads."""
    window: int = 4
    """Snippets to each side that attention sees; 0 is the whole video."""
    dropout: float = 0.0
    """Inside the temporal transformer."""
    input_length: Literal["one", "root_width"] = "root_width"
    """Length of an embedding that enters the temporal transformer: 1, or the root of its width, so that its numbers
    have size 1 like what the transformer adds to them. At its start, frozen CLIP, both score the same; at 512 numbers
    and a length of 1 a few steps of the paper's rate swamp what CLIP knows."""
    more: tuple[MoreVLP, ...] = ()
    """Further models, each on a stream of its own; the branch's logit is the mean of all. Beyond the paper."""
    scale: float | None = None
    """Factor on the cosine; none: CLIP's own (equation 3)."""
    learn_scale: bool = True
    """Train the factor."""
    bias: Literal["learned", "none"] = "learned"
    """`none` is equation (3) as printed; `learned` lets the sigmoid be a probability."""
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    """As in the CBP branch."""

    def __post_init__(self) -> None:
        at_least("vlp", self, 1, "heads")
        at_least("vlp", self, 0, "layers", "window")
        if not 0 <= self.dropout < 1:
            raise UserError(f"vlp.dropout must be in [0, 1), got {self.dropout}")
        _check_scale("vlp.scale", self.scale)
        if self.text != "precomputed" and (self.text_embeddings or any(more.text_embeddings for more in self.more)):
            raise UserError(
                f"vlp.text_embeddings is for vlp.text 'precomputed', and vlp.text is {self.text!r}: set "
                "vlp.text=precomputed, or leave the file out"
            )
        if self.text == "precomputed" and not self.text_embeddings:
            raise UserError("vlp.text is 'precomputed': set vlp.text_embeddings to an npz of names and embeddings")
        streams = [self.stream, *(more.stream for more in self.more)]
        if len(set(streams)) < len(streams):
            raise UserError(f"vlp.more: every model needs a stream of its own, got {', '.join(streams)}")
        if self.text == "precomputed" and not all(more.text_embeddings for more in self.more):
            raise UserError("vlp.text is 'precomputed': set text_embeddings of every model of vlp.more")
        if self.prompt_length < 0:
            raise UserError(f"vlp.prompt_length must not be negative, got {self.prompt_length}")


def _check_scale(where: str, scale: float | None) -> None:
    if scale is not None and not 0 < scale < math.inf:
        raise UserError(f"{where} must be a positive number, got {scale}")
