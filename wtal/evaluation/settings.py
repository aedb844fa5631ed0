"""Settings of an evaluation."""

import math
from dataclasses import dataclass

from feature_extraction.errors import UserError

ACTIVITYNET_TIOU = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
THUMOS_TIOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class EvaluationSettings:
    """How detections are measured."""

    protocol: str = "activitynet"
    """A key of `wtal.evaluation.detection.PROTOCOLS`: activitynet, thumos-snippet or thumos-official."""
    tiou: tuple[float, ...] = THUMOS_TIOU
    """Thresholds of temporal intersection over union, each above 0 and at most 1."""

    def __post_init__(self) -> None:
        # imported here: detection.py needs numpy, and reading a configuration should not
        from wtal.evaluation.detection import protocol_named

        protocol_named(self.protocol)
        check_tiou(self.tiou)


def check_tiou(tiou: tuple[float, ...]) -> None:
    """Raise `UserError` unless `tiou` holds at least one threshold and each is above 0 and at most 1."""
    if not len(tiou):
        raise UserError("no tIoU threshold given; give at least one, for example 0.5")
    for threshold in tiou:
        if not (math.isfinite(threshold) and 0 < threshold <= 1):
            raise UserError(f"tIoU threshold {threshold} is outside (0, 1]")
    if len(set(tiou)) != len(tiou):
        raise UserError(f"a tIoU threshold is given twice: {', '.join(map(str, tiou))}")


@dataclass(frozen=True)
class BootstrapSettings:
    """How confidence intervals over videos are drawn."""

    resamples: int = 1000
    """Draws of videos with replacement."""
    confidence: float = 0.95
    """Share of the draws inside the interval, between 0 and 1."""
    seed: int = 0
    """Of the draws: the same seed gives the same interval."""

    def __post_init__(self) -> None:
        if self.resamples < 2:
            raise UserError(f"bootstrap resamples must be at least 2, got {self.resamples}")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence must be between 0 and 1, got {self.confidence}")
        if self.seed < 0:
            raise UserError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True)
class DiagnosisSettings:
    """How detections are diagnosed (DETAD; Alwassel et al., ECCV 2018)."""

    bins: str = "quantile"
    """Of length, coverage and count: `thumos14` and `activitynet` as in DETAD, or `quantile` (fifths)."""
    limit: int = 10
    """Detections looked at in each class: so many times its ground truths, the best-scored ones."""
    low_tiou: float = 0.1
    """Below this overlap a false positive is background."""

    def __post_init__(self) -> None:
        from wtal.evaluation.characteristics import BINS

        if self.bins not in BINS:
            raise UserError(f"unknown bins {self.bins!r}; there are: {', '.join(BINS)}")
        if self.limit < 1:
            raise UserError(f"limit must be at least 1, got {self.limit}")
        check_tiou((self.low_tiou,))
