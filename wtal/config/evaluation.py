"""Settings of an evaluation."""

import math
from dataclasses import dataclass

from feature_extraction.errors import UserError

ACTIVITYNET_TIOU = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
PROTOCOL_NAMES = ("activitynet", "thumos-snippet", "thumos-official")
"""Keys of `wtal.evaluation.detection.protocols.PROTOCOLS`, which says what each is."""
THUMOS_TIOU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class EvaluationSettings:
    """How detections are measured."""

    protocol: str = "activitynet"
    """A key of `wtal.evaluation.detection.protocols.PROTOCOLS`: activitynet, thumos-snippet or thumos-official."""
    tiou: tuple[float, ...] = THUMOS_TIOU
    """Thresholds of temporal intersection over union, each above 0 and at most 1."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOL_NAMES:
            raise UserError(f"unknown protocol {self.protocol!r}; there are: {', '.join(PROTOCOL_NAMES)}")
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
