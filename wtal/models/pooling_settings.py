"""Settings of the step from frame scores to a video score."""

import math
from dataclasses import dataclass
from typing import Literal

from feature_extraction.errors import UserError

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


@dataclass(frozen=True)
class PoolingSettings:
    """Which pooling head, and how it is trained. A value of None stands for the head's own default."""

    name: PoolingName = "topk"
    """The head; `wtal.models.pooling.POOLINGS` says what each is."""
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
    """attentional: rank P of the second-order weight."""
    per_class_bottom_up: bool = False
    """attentional: a bottom-up map of its own for each class instead of one shared, class-agnostic map."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.topk_ratio) and self.topk_ratio >= 1):
            raise UserError(f"pooling.topk_ratio must be a number of at least 1, got {self.topk_ratio!r}")
        if self.rank < 1:
            raise UserError(f"pooling.rank must be at least 1, got {self.rank!r}")
        if self.exponent_mode == "linear" and self.exponent_final is None:
            raise UserError(
                "pooling.exponent_mode=linear needs pooling.exponent_final, the value at the end of training"
            )
        if self.exponent_mode != "linear" and self.exponent_final is not None:
            raise UserError("pooling.exponent_final is only used with pooling.exponent_mode=linear")
        if self.space is not None and self.name not in ("topk", "attentional"):
            raise UserError(
                f"pooling.space={self.space!r} is for topk and attentional only, not for {self.name!r}"
            )
        if (
            self.exponent_min is not None
            and self.exponent_max is not None
            and self.exponent_min > self.exponent_max
        ):
            raise UserError(
                f"pooling.exponent_min {self.exponent_min} is over exponent_max {self.exponent_max}"
            )
        for name in ("regulariser", "exponent_lr"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UserError(f"pooling.{name} must be a number of at least 0, got {value!r}")
