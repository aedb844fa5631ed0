"""How sure a mAP is: bootstrap over videos, and the paired comparison of two sets of detections.

Videos, not detections, are the independent units, so videos are drawn with replacement, as many as there are,
and the mAP of each draw is computed anew. Matching happens inside one video, so it is done once; a draw only
changes how often each video's detections and ground truths stand in the ranking. A class without ground truth
in a draw is left out of that draw's mean.

mAP of few videos is too high (the envelope of a ragged curve), and that of a draw is too high once more, so
the usual percentiles of the draws sit too high as well. The interval is therefore the basic one (Davison and
Hinkley 1997, section 5.2): the draws reflected about the value, `[2 value - upper, 2 value - lower]`. On
simulated data of 30, 60 and 200 videos a 90 % interval held the mAP of 4,000 videos in 82, 83 and 90 % of 200
data sets; percentile intervals did in 52, 62 and 77 %. For few videos read it as a lower bound on the doubt.

Legend: R resamples, V videos, K thresholds, N detections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet, Detection
from wtal.evaluation.detection.protocols import (
    Assignment,
    DetectionResult,
    Protocol,
    assign,
    protocol_named,
    result_of,
    rows_by_class,
)

if TYPE_CHECKING:
    import pandas

BLOCK_VALUES = 1 << 22
"""Resamples times detections of a class at a time: bounds the memory."""


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
class Interval:
    """A value and its basic bootstrap interval."""

    value: float
    low: float
    high: float
    bias: float
    """Mean of the draws minus the value: about what this number of videos adds to it."""

    def as_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "bias": self.bias}


@dataclass(frozen=True)
class BootstrapResult:
    """mAP with its intervals. Fractions."""

    result: DetectionResult
    mAP: tuple[Interval, ...]
    """One a threshold, in the order of `result.tiou`."""
    average_mAP: Interval
    settings: BootstrapSettings

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "resamples": self.settings.resamples,
            "confidence": self.settings.confidence,
            "seed": self.settings.seed,
            "mAP": [interval.as_dict() for interval in self.mAP],
            "average_mAP": self.average_mAP.as_dict(),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """A row a threshold and one for their `mean`; columns `value`, `low`, `high` and `bias`, fractions."""
        return _frame(self.result.tiou, [*self.mAP, self.average_mAP])


@dataclass(frozen=True)
class Comparison:
    """Two sets of detections on the same videos; differences are second minus first."""

    first: BootstrapResult
    second: BootstrapResult
    difference: tuple[Interval, ...]
    """One a threshold."""
    average_difference: Interval
    p_value: float
    """Two-sided, of the difference in average mAP: twice the share of draws on the rarer side of 0."""

    def notes(self, names: Sequence[str] = ("first", "second")) -> list[str]:
        """What a reader should know of the input: of the ground truth, then of either side under its name."""
        first, second = self.first.result.notes, self.second.result.notes
        return [
            *(note for note in first if note in second),
            *(f"{names[0]}: {note}" for note in first if note not in second),
            *(f"{names[1]}: {note}" for note in second if note not in first),
        ]

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        first, second = self.first.result, self.second.result
        return {
            "protocol": first.protocol,
            "tiou": list(first.tiou),
            "first": self.first.as_dict(),
            "second": self.second.as_dict(),
            "difference": [interval.as_dict() for interval in self.difference],
            "average_difference": self.average_difference.as_dict(),
            "p_value": self.p_value,
            "AP_difference": {
                name: float(second.ap_KC[:, c].mean() - first.ap_KC[:, c].mean())
                for c, name in enumerate(first.classes)
            },
            "notes": self.notes(),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """A row a threshold and one for their `mean`; mAP of `first` and `second`, then the difference's `value`,
        `low`, `high` and `bias`. Fractions."""
        tiou = self.first.result.tiou
        frame = _frame(tiou, [*self.difference, self.average_difference])
        for place, (name, side) in enumerate((("first", self.first), ("second", self.second))):
            frame.insert(place, name, side.to_frame()["value"])
        frame.attrs = {"protocol": self.first.result.protocol, "p_value": self.p_value}
        return frame


def _frame(tiou: Sequence[float], intervals: Sequence[Interval]) -> "pandas.DataFrame":
    import pandas

    index = pandas.Index([*tiou, "mean"], name="tIoU", dtype=object)
    return pandas.DataFrame([interval.as_dict() for interval in intervals], index)


def bootstrap_map(
    ground_truth: AnnotationSet,
    predictions: Mapping[str, Sequence[Detection]],
    protocol: str = "activitynet",
    tiou: Sequence[float] | None = None,
    settings: BootstrapSettings | None = None,
) -> BootstrapResult:
    """`detection_map` with an interval for each mAP. Arguments and errors as there."""
    return intervals_of(assign(ground_truth, predictions, protocol, tiou), protocol, settings or BootstrapSettings())


def intervals_of(assignment: Assignment, protocol: str, settings: BootstrapSettings) -> BootstrapResult:
    """`bootstrap_map` of an assignment that was made under `protocol`."""
    videos = sorted(assignment.problem.videos)
    return _with_intervals(assignment, protocol, videos, settings)[0]


def compare(
    ground_truth: AnnotationSet,
    first: Mapping[str, Sequence[Detection]],
    second: Mapping[str, Sequence[Detection]],
    protocol: str = "activitynet",
    tiou: Sequence[float] | None = None,
    settings: BootstrapSettings | None = None,
) -> Comparison:
    """Both are measured on the same draws of videos, so what a video does to both cancels."""
    settings = settings or BootstrapSettings()
    assignments = [assign(ground_truth, predictions, protocol, tiou) for predictions in (first, second)]
    videos = sorted({name for assignment in assignments for name in assignment.problem.videos})
    (one, one_RK), (two, two_RK) = (_with_intervals(a, protocol, videos, settings) for a in assignments)
    difference_RK = two_RK - one_RK
    values = np.array(two.result.mAP) - np.array(one.result.mAP)
    average_R = _reflected(values.mean(), difference_RK.mean(axis=1))
    rarer = min(int((average_R <= 0).sum()), int((average_R >= 0).sum()))
    return Comparison(
        one,
        two,
        tuple(_interval(v, difference_RK[:, k], settings, -1.0) for k, v in enumerate(values)),
        _interval(values.mean(), difference_RK.mean(axis=1), settings, -1.0),
        min(1.0, 2 * (rarer + 1) / (len(average_R) + 1)),
    )


def draw_weights(videos: int, settings: BootstrapSettings) -> np.ndarray:
    """How often each video is drawn, int64 `[R, V]`; each row sums to V."""
    generator = np.random.default_rng(settings.seed)
    return generator.multinomial(videos, np.full(videos, 1 / videos), size=settings.resamples)


def resampled_map(assignment: Assignment, rules: Protocol, weight_RV: np.ndarray) -> np.ndarray:
    """mAP of each draw at each threshold, float64 `[R, K]`; NaN where a draw has no ground truth at all."""
    problem = assignment.problem
    resamples, thresholds = len(weight_RV), len(assignment.tiou)
    total_RK, classes_R = np.zeros((resamples, thresholds)), np.zeros(resamples)
    truths_VC = np.zeros((len(problem.videos), len(problem.classes)), dtype=np.int64)
    np.add.at(truths_VC, (problem.truth.video, problem.truth.label), 1)
    for c, rows in enumerate(rows_by_class(problem)):
        positives_R = weight_RV @ truths_VC[:, c]
        classes_R += positives_R > 0
        step = max(1, BLOCK_VALUES // max(1, len(rows)))
        for first in range(0, resamples, step):
            part = slice(first, first + step)
            weight_RN = weight_RV[part][:, problem.found.video[rows]]
            for k in range(thresholds):
                counted = assignment.counted_KN[k, rows]
                hit = assignment.truth_KN[k, rows] >= 0
                weight = weight_RN if counted.all() else weight_RN[:, counted]
                ap_R = rules.resampled_precision(hit[counted], weight, positives_R[part])
                total_RK[part, k] += np.nan_to_num(ap_R, nan=0.0)
    return np.divide(total_RK, classes_R[:, None], out=np.full(total_RK.shape, np.nan), where=classes_R[:, None] > 0)


def _with_intervals(
    assignment: Assignment, protocol: str, videos: Sequence[str], settings: BootstrapSettings
) -> tuple[BootstrapResult, np.ndarray]:
    """`videos`, by name, are the ones drawn from: the draws do not hang on the order of a file."""
    result = result_of(assignment, protocol)
    position = {name: index for index, name in enumerate(videos)}
    weight_RV = draw_weights(len(videos), settings)[:, [position[name] for name in assignment.problem.videos]]
    mAP_RK = resampled_map(assignment, protocol_named(protocol), weight_RV)
    each = tuple(_interval(value, mAP_RK[:, k], settings) for k, value in enumerate(result.mAP))
    average = _interval(result.average_mAP, mAP_RK.mean(axis=1), settings)
    return BootstrapResult(result, each, average, settings), mAP_RK


def _interval(value: float, draws_R: np.ndarray, settings: BootstrapSettings, lowest: float = 0.0) -> Interval:
    outside = (1 - settings.confidence) / 2
    # no interval leaves the values that there are: mAP 0 to 1, differences -1 to 1
    low, high = np.clip(np.quantile(_reflected(value, draws_R), [outside, 1 - outside]), lowest, 1.0)
    return Interval(float(value), float(low), float(high), float(np.nanmean(draws_R) - value))


def _reflected(value: float, draws_R: np.ndarray) -> np.ndarray:
    """The draws that have a mAP, reflected about `value`."""
    return 2 * value - draws_R[~np.isnan(draws_R)]
