"""Settings of the two branches. Where the paper is silent, the docstring of the field says what we decided."""

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from feature_extraction.errors import UserError
from wtal.config.strict import at_least

PoolingName = Literal[
    "topk",
    "max",
    "mean",
    "linear_softmax",
    "exp_softmax",
    "auto",
    "attention",
    "power",
    "generalized_mean",
    "noisy_or",
    "attentional",
]


LOGIT_POOLINGS = ("topk", "attentional")
"""Heads that pool frame logits (softmax over classes) unless `space` says otherwise; the others pool probabilities."""


@dataclass(frozen=True)
class PoolingSettings:
    """Which pooling head, and how it is trained. A value of None stands for the head's own default."""

    name: PoolingName = "topk"
    """The head; `wtal.models.pooling.head.POOLINGS` says what each is."""
    space: Literal["logit", "prob"] | None = None
    """topk and attentional only. logit: mean of frame logits, softmax over classes (their default; METHOD eq.
    1). prob: sigmoid, every class by itself, which more than one true class and a single-class data set
    need."""
    topk_ratio: float = 8.0
    """topk: k = ceil(T / topk_ratio), T being the real length of the video in snippets."""
    exponent_mode: Literal["learnt", "fixed", "linear"] = "learnt"
    """power (n), generalized_mean (r), auto (alpha): learnt per class, kept at the start value, or moved
    linearly from the start value to `exponent_final` over training."""
    exponent_init: float | None = None
    """Start value; power 1 (linear softmax), generalized_mean 1 (mean), auto 0 (mean)."""
    exponent_final: float | None = None
    """End value of the linear schedule."""
    exponent_min: float | None = None
    """Lower bound, kept by projection after each step; power 0, generalized_mean 1, auto none (0 gives
    CAP)."""
    exponent_max: float | None = None
    """Upper bound, kept by projection after each step; none by default."""
    exponent_optimizer: Literal["sgd", "adam"] | None = None
    """Optimiser of the learnt exponents; generalized_mean SGD, power and auto Adam. Adam on r grows every
    class at the same speed, because the gradients of r have one sign and Adam divides their size away."""
    exponent_lr: float | None = None
    """Learning rate of the learnt exponents, without weight decay; generalized_mean 2.0, power and auto
    0.02."""
    regulariser: float | None = None
    """Weight of sum over classes of (exponent - neutral)^2, added to a loss that is a mean over videos and
    classes. Neutral is 0 for power and auto, 1 for generalized_mean. Default: power 0.01, the others 0."""
    attention_axis: Literal["time", "class"] = "time"
    """attention: frame weights from a softmax over time (TALNet), or over classes and then normalised over
    time (DESED baseline, here with a mask that works)."""
    rank: int = 1
    """attentional: rank P of the second-order weight; 0: the full matrix of each class, without a bottom-up map."""
    per_class_bottom_up: bool = False
    """attentional: a bottom-up map of its own for each class instead of one shared, class-agnostic map."""

    bottom_up_bias: float = 1.0
    """attentional: what the first bottom-up map's bias starts at. 1: training begins as average pooling; 0, as
    published: with the map's own contrast."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.topk_ratio) and self.topk_ratio >= 1):
            raise UserError(f"pooling.topk_ratio must be a number of at least 1, got {self.topk_ratio!r}")
        if not math.isfinite(self.bottom_up_bias):
            raise UserError(f"pooling.bottom_up_bias must be a number, got {self.bottom_up_bias!r}")
        if self.rank < 0:
            raise UserError(f"pooling.rank must be at least 0, got {self.rank!r}")
        if self.exponent_mode == "linear" and self.exponent_final is None:
            raise UserError(
                "pooling.exponent_mode=linear needs pooling.exponent_final, the value at the end of training"
            )
        if self.exponent_mode != "linear" and self.exponent_final is not None:
            raise UserError("pooling.exponent_final is only used with pooling.exponent_mode=linear")
        if self.space is not None and self.name not in LOGIT_POOLINGS:
            raise UserError(f"pooling.space={self.space!r} is for topk and attentional only, not for {self.name!r}")
        if self.exponent_min is not None and self.exponent_max is not None and self.exponent_min > self.exponent_max:
            raise UserError(f"pooling.exponent_min {self.exponent_min} is over exponent_max {self.exponent_max}")
        for name in ("regulariser", "exponent_lr"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"pooling.{name} must be a number of at least 0, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class MagnitudeSettings:
    """UM (Lee et al., AAAI 2021)."""

    width: int | None = None
    """Width of its features; none: that of the joined input, as published (2048 to 2048)."""
    margin: float | None = None
    """Magnitude that foreground features are pushed to; none: 100 at width 2048, as published, and in proportion to
    the root of the width at others."""
    action_ratio: int = 9
    """T over the number of snippets that count as action."""
    background_ratio: int = 4
    """T over the number of snippets that count as background."""
    magnitude_weight: float = 5e-4
    """Weight of the magnitude loss."""
    background_weight: float = 1.0
    """Weight of the loss that wants background snippets to be of no class."""

    def __post_init__(self) -> None:
        at_least("cbp.um", self, 1, "width", "action_ratio", "background_ratio")
        at_least("cbp.um", self, 0, "magnitude_weight", "background_weight")
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise UserError(f"cbp.um.margin must be a positive number, got {self.margin}")


@dataclass(frozen=True, kw_only=True)
class ConsensusSettings:
    """CO2-Net (Hong et al., ACM MM 2021)."""

    topk_ratio: int = 7
    """T over the number of snippets behind a video score in training; ActivityNet: 5."""
    coactivity: float = 1.0
    """Weight of the co-activity loss."""
    mutual: float = 1.0
    """Weight of the mutual loss of the two attentions."""
    norm: float = 0.8
    """Weight of the attentions' mean."""
    guide: float = 0.8
    """Weight of the guide loss (attention is the complement of the background class)."""
    smooth: int = 0
    """Snippets over which class scores and attentions are averaged, an odd number; 0: not at all. ActivityNet: 13."""

    def __post_init__(self) -> None:
        self._check("cbp.co2net")

    def _check(self, where: str) -> None:
        at_least(where, self, 1, "topk_ratio")
        at_least(where, self, 0, "coactivity", "mutual", "norm", "guide")
        if self.smooth and (self.smooth < 0 or self.smooth % 2 == 0):
            raise UserError(f"{where}.smooth must be 0 or an odd number of snippets, got {self.smooth}")


@dataclass(frozen=True, kw_only=True)
class EvidentialSettings(ConsensusSettings):
    """DELU (Chen et al., ECCV 2022): CO2-Net's settings, and its own."""

    guide: float = 0.4
    """As in `co2net`; ActivityNet: 0.8."""
    evidential: float = 1.3
    """Weight of the evidential video loss; ActivityNet: 1.2."""
    uncertainty: float = 0.4
    """Weight of the guide loss that uncertainty weights; ActivityNet: 0.2."""
    amplitude: float = 0.7
    """A, how far those weights are from 1 for the surest and the least sure snippet; ActivityNet: 0.2."""
    attention_ratio: int = 9
    """T over the number of most attended snippets behind a video's evidence; ActivityNet: 5."""
    evidence: Literal["exp", "relu"] = "exp"
    """What the evidential video loss is: cross-entropy of evidence exp(score), or, published for ActivityNet, the
    squared error of evidence max(score, 0)."""
    ordering: Literal["published", "ranked"] = "published"
    """Which snippet gets which weight of the uncertainty's curve: as the published code gathers them, which is by no
    rank, or by rank as the paper means it, the surest first."""

    def __post_init__(self) -> None:
        self._check("cbp.delu")
        at_least("cbp.delu", self, 1, "attention_ratio")
        at_least("cbp.delu", self, 0, "evidential", "uncertainty")
        if not 0 <= self.amplitude <= 1:
            raise UserError(f"cbp.delu.amplitude must be in [0, 1], got {self.amplitude}")


OWN = ("transformer", "convolution", "multiscale", "spatial")
"""Architectures of the CBP branch that the pooling heads fit."""


@dataclass(frozen=True, kw_only=True)
class CBPSettings:
    """The classification branch (I3D features in)."""

    name: str = "transformer"
    """Architecture: `transformer` (the paper's), `convolution`, `multiscale`, `spatial` (on features with a grid of
    places, `extraction.spatial`: pools over space and time at once), or a method with a group of settings of
    its name: `co2net`, `um` and `delu`, the published ones of Table 6. Settings of one architecture may stay where
    another is chosen."""
    streams: tuple[str, ...] = ("rgb", "flow")
    """Feature streams, joined side by side in this order."""
    early_fusion: Literal["none", "average", "concatenation"] = "none"
    """Feed the VLP's stream to this branch too (the fair-comparison baseline): a linear map of it averaged with the own
    streams, or joined to them. Methods that compare two streams (CO2-Net, DELU) get it beside each of the two."""
    width: int = 512
    """Feature width of `transformer`, `convolution`, `multiscale` and `spatial`. Silent in the paper."""
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
    refinement: int = 0
    """Width of a small network that adds to the frame scores what the snippets next to a frame say; 0: none. Frame
    labels alone train it: the bag loss does not see it, and until the first F phase it adds nothing. `transformer`,
    `convolution` and `multiscale` only."""
    input_norm: Literal["none", "standard", "l2"] = "none"
    """Scale the input: by the training videos' mean and deviation per dimension, or to unit length."""
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    """Frame probability for pseudo-labels, distillation and test. The paper's sigma is the softmax over classes, named
    at (1) and reused in (3); `sigmoid`, each class by itself, is our departure."""
    um: MagnitudeSettings = MagnitudeSettings()
    """UM."""
    co2net: ConsensusSettings = ConsensusSettings()
    """CO2-Net."""
    delu: EvidentialSettings = EvidentialSettings()
    """DELU."""
    pooling: PoolingSettings = PoolingSettings()
    """Frame scores to video score; `topk` is equation (1). Not for the published methods."""

    instance_weight: float | None = None
    """lambda of the bag+instance loss (Zhou et al., 2017); none: the bag's cross-entropy alone. Heads of the
    probability space only."""
    map_weight: float = 1.0
    """Weight of the squared difference between the bottom-up map and `data.boxes`, where those are given."""

    def __post_init__(self) -> None:
        at_least("cbp", self, 1, "width", "heads", "kernel")
        at_least("cbp", self, 0, "layers", "window", "instance_weight", "map_weight", "refinement")
        if self.kernel % 2 == 0:
            raise UserError(f"cbp.kernel must be an odd number of snippets, got {self.kernel}")
        if not self.dilations or min(self.dilations) < 1:
            raise UserError(f"cbp.dilations must be one or more numbers of at least 1, got {list(self.dilations)}")
        if self.name not in (names := (*OWN, *methods(self))):
            raise UserError(f"cbp.name: {self.name!r} is not one of {', '.join(map(repr, names))}")
        if self.name not in OWN:
            self._refuse_what_methods_lack()
        if self.instance_weight is not None and self.pooling.name in LOGIT_POOLINGS and not self.pooling.space:
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

    @property
    def method(self) -> Any:
        """The group of settings of the chosen method. Raises `AttributeError` for architectures that have none."""
        return getattr(self, self.name)

    def _refuse_what_methods_lack(self) -> None:
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


def methods(settings: type[CBPSettings] | CBPSettings) -> tuple[str, ...]:
    """Architectures that pool scores over time in a way of their own: those with a group of settings of their name."""
    return tuple(field.name for field in fields(settings) if is_dataclass(field.type) and field.name != "pooling")


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
