"""What kind of mistakes detections make, as DETAD defines it (Alwassel et al., "Diagnosing Error in Temporal
Action Detectors", ECCV 2018), under the `activitynet` protocol.

- Of each class only the best-scored `limit` x (number of its ground truths) detections are looked at.
- A false positive is named after the ground truth of any class that it overlaps most in its video:

                          same class            other class
      tIoU >= threshold   double detection      wrong label
      low <= tIoU < thr   localization          confusion
      tIoU < low, or no ground truth            background

  Where that overlap is tied the ground truth of the detection's own class is taken.
- Normalised AP (AP_N): precision = R N / (R N + FP), R the recall and N the mean number of ground truths of a
  class, so that classes and bins of different size compare. Otherwise the area under the monotone envelope.
- Impact of a type of error: mean AP_N (classes and thresholds) without these false positives, minus with
  them.
- Sensitivity: mean AP_N of the ground truths in one bin; detections that took a ground truth outside it are
  ignored.
- False negatives: share of the ground truths of a bin, or of a pair of bins, that no detection took.

Legend: K thresholds, N detections, G ground truths, C classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from feature_extraction.errors import UserError
from wtal.config.evaluation import check_tiou
from wtal.datasets.annotations import AnnotationSet, Detection
from wtal.evaluation.detection.arrays import Problem
from wtal.evaluation.detection.matching import best_overlap
from wtal.evaluation.detection.protocols import Assignment, assign, result_of, rows_by_class
from wtal.evaluation.diagnosis.characteristics import BINS, Binning, characteristics

if TYPE_CHECKING:
    import pandas

TRUE, DOUBLE, WRONG_LABEL, LOCALIZATION, CONFUSION, BACKGROUND = range(6)
KINDS = ("true positive", "double detection", "wrong label", "localization", "confusion", "background")
ERRORS = range(DOUBLE, BACKGROUND + 1)


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
        from wtal.evaluation.diagnosis.characteristics import BINS

        if self.bins not in BINS:
            raise UserError(f"unknown bins {self.bins!r}; there are: {', '.join(BINS)}")
        if self.limit < 1:
            raise UserError(f"limit must be at least 1, got {self.limit}")
        check_tiou((self.low_tiou,))


@dataclass(frozen=True)
class BinReport:
    """One bin of one characteristic."""

    label: str
    instances: int
    ap_n: float | None
    """Mean AP_N of the bin's ground truths; None for an empty bin."""
    missed: float | None
    """Share of the bin's ground truths that no detection took; None for an empty bin."""


@dataclass(frozen=True)
class PairReport:
    """False negatives over two characteristics at once."""

    rows: str
    columns: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    instances: np.ndarray
    """int64 `[rows, columns]`."""
    missed: np.ndarray
    """float64 `[rows, columns]`, NaN where there is no instance."""


@dataclass(frozen=True)
class Diagnosis:
    """All shares, AP and gains are fractions, means over the thresholds."""

    tiou: tuple[float, ...]
    settings: DiagnosisSettings
    mAP: float
    """Plain mean AP of all detections, not limited, for reference."""
    mAP_n: float
    """Mean AP_N of the detections looked at."""
    detections: int
    """Detections looked at."""
    profile: np.ndarray
    """float64 `[limit, 6]`: mean number of each of `KINDS` among ranks (g-1) x G to g x G of each class."""
    impact: dict[str, float]
    """Gain in mean AP_N if the errors of one kind were gone."""
    plain_impact: dict[str, float]
    """The same gain in plain mean AP."""
    bins: dict[str, tuple[BinReport, ...]]
    """By characteristic: length, coverage, instances."""
    units: dict[str, str]
    """Unit of each characteristic."""
    pairs: tuple[PairReport, ...]
    missed: float
    """Share of all ground truths that no detection took."""
    confusions: tuple[tuple[str, str, int], ...]
    """(predicted, actual, count) of wrong labels and confusions at the lowest threshold, by frequency."""
    notes: tuple[str, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Share of each of `KINDS` among all detections looked at."""
        total = self.profile.sum(axis=0)
        return {kind: float(total[i] / max(total.sum(), 1)) for i, kind in enumerate(KINDS)}

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "protocol": "activitynet",
            "tiou": list(self.tiou),
            "bins": self.settings.bins,
            "limit": self.settings.limit,
            "low_tiou": self.settings.low_tiou,
            "mAP": self.mAP,
            "mAP_n": self.mAP_n,
            "detections": self.detections,
            "shares": self.shares,
            "profile": {kind: self.profile[:, i].tolist() for i, kind in enumerate(KINDS)},
            "impact": self.impact,
            "plain_impact": self.plain_impact,
            "missed": self.missed,
            "characteristics": {name: [vars(report) for report in reports] for name, reports in self.bins.items()},
            "units": self.units,
            "missed_by_pair": [
                {
                    "rows": pair.rows,
                    "columns": pair.columns,
                    "row_labels": list(pair.row_labels),
                    "column_labels": list(pair.column_labels),
                    "instances": pair.instances.tolist(),
                    "missed": [[None if np.isnan(v) else float(v) for v in row] for row in pair.missed],
                }
                for pair in self.pairs
            ],
            "confusions": [
                {"predicted": predicted, "actual": actual, "count": count}
                for predicted, actual, count in self.confusions
            ],
            "notes": list(self.notes),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """A row each of `KINDS`: `share` of the detections looked at, and `impact` (AP_N) and `plain_impact` (AP)
        of the errors, NaN for true positives."""
        import pandas

        columns = {"share": self.shares, "impact": self.impact, "plain_impact": self.plain_impact}
        return pandas.DataFrame(columns, pandas.Index(KINDS, name="kind"))

    def bins_frame(self) -> "pandas.DataFrame":
        """A row a bin of length, coverage and count: `instances`, `ap_n` and `missed`."""
        import pandas

        rows = {(name, report.label): vars(report) for name, reports in self.bins.items() for report in reports}
        index = pandas.MultiIndex.from_tuples(rows, names=["characteristic", "bin"])
        frame = pandas.DataFrame(list(rows.values()), index, ["instances", "ap_n", "missed"])
        return frame.astype({"ap_n": float, "missed": float})


def diagnose(
    ground_truth: AnnotationSet,
    predictions: Mapping[str, Sequence[Detection]],
    tiou: Sequence[float] = (0.5,),
    settings: DiagnosisSettings | None = None,
) -> Diagnosis:
    """Diagnose `predictions` (seconds). `tiou`: the thresholds that everything is averaged over (DETAD: 0.5
    on THUMOS14, 0.5 to 0.95 on ActivityNet). Raises `UserError` as `detection_map` does.
    """
    settings = settings or DiagnosisSettings()
    everything = assign(ground_truth, predictions, "activitynet", tiou)
    looked_at, group_N = _limit(everything, settings.limit)
    problem = looked_at.problem
    kind_KN, nearest_N = _kinds(looked_at, settings.low_tiou)
    hit_KN, keep_KN = looked_at.truth_KN >= 0, np.ones(kind_KN.shape, dtype=bool)
    base = _mean_ap(problem, hit_KN, keep_KN, normalised=True)
    plain = _mean_ap(problem, hit_KN, keep_KN, normalised=False)
    taken_KG = np.zeros((len(looked_at.tiou), len(problem.truth)), dtype=bool)
    k, n = np.nonzero(hit_KN)
    taken_KG[k, looked_at.truth_KN[k, n]] = True
    binnings = characteristics(problem, BINS[settings.bins])
    return Diagnosis(
        looked_at.tiou,
        settings,
        result_of(everything, "activitynet").average_mAP,
        base,
        len(problem.found),
        _profile(kind_KN, group_N, settings.limit),
        {KINDS[e]: _mean_ap(problem, hit_KN, kind_KN != e, True) - base for e in ERRORS},
        {KINDS[e]: _mean_ap(problem, hit_KN, kind_KN != e, False) - plain for e in ERRORS},
        {binning.name: _bin_reports(looked_at, binning, taken_KG) for binning in binnings},
        {binning.name: binning.unit for binning in binnings},
        tuple(_pair_report(one, other, taken_KG) for one, other in combinations(binnings, 2)),
        float(1 - taken_KG.mean()),
        _confusions(problem, kind_KN, nearest_N, int(np.argmin(looked_at.tiou))),
        problem.notes,
    )


def _limit(assignment: Assignment, limit: int) -> tuple[Assignment, np.ndarray]:
    """The best-scored `limit` x G detections of each class; for each its group (0: the first G of its class).

    Detections by falling score never depend on later ones, so the assignment of what stays is unchanged.
    """
    problem = assignment.problem
    instances_C = problem.instances_C()
    rank_N = np.zeros(len(problem.found), dtype=np.int64)
    for rows in rows_by_class(problem):
        rank_N[rows] = np.arange(len(rows))
    group_N = rank_N // instances_C[problem.found.label]
    stays = group_N < limit
    limited = Assignment(
        replace(problem, found=problem.found.take(stays)),
        assignment.tiou,
        assignment.truth_KN[:, stays],
        assignment.counted_KN[:, stays],
    )
    return limited, group_N[stays]


def _kinds(assignment: Assignment, low_tiou: float) -> tuple[np.ndarray, np.ndarray]:
    """The kind of each detection at each threshold, and the ground truth it overlaps most (-1: none)."""
    found, truth = assignment.problem.found, assignment.problem.truth
    nearest_N, overlap_N = best_overlap(found, truth)
    same_N = np.zeros(len(found), dtype=bool)
    near = nearest_N >= 0
    same_N[near] = truth.label[nearest_N[near]] == found.label[near]
    kind_KN = np.empty(assignment.truth_KN.shape, dtype=np.int64)
    for k, threshold in enumerate(assignment.tiou):
        kind_KN[k] = np.select(
            [
                assignment.truth_KN[k] >= 0,
                (overlap_N >= threshold) & same_N,
                overlap_N >= threshold,
                (overlap_N >= low_tiou) & same_N,
                overlap_N >= low_tiou,
            ],
            [TRUE, DOUBLE, WRONG_LABEL, LOCALIZATION, CONFUSION],
            BACKGROUND,
        )
    return kind_KN, nearest_N


def _profile(kind_KN: np.ndarray, group_N: np.ndarray, limit: int) -> np.ndarray:
    counts = np.zeros((limit, len(KINDS)))
    for kind_N in kind_KN:
        np.add.at(counts, (group_N, kind_N), 1)
    return counts / len(kind_KN)


def _mean_ap(
    problem: Problem, hit_KN: np.ndarray, keep_KN: np.ndarray, normalised: bool, positives_C: np.ndarray | None = None
) -> float:
    """Mean AP or AP_N over thresholds and classes with positives, of the detections that `keep_KN` leaves."""
    positives_C = problem.instances_C() if positives_C is None else positives_C
    mean_instances = len(problem.truth) / len(problem.classes)
    values = []
    for c, rows in enumerate(rows_by_class(problem)):
        if not positives_C[c]:
            continue
        scale = mean_instances / positives_C[c] if normalised else 1.0
        for k in range(len(hit_KN)):
            values.append(_envelope_ap(hit_KN[k, rows[keep_KN[k, rows]]], int(positives_C[c]), scale))
    return float(np.mean(values))


def _envelope_ap(hit_N: np.ndarray, positives: int, scale: float) -> float:
    """Area under the envelope of `scale * TP / (scale * TP + FP)` over recall; scale 1 is plain AP."""
    rank_H = np.flatnonzero(hit_N)
    right_H = np.arange(1, len(rank_H) + 1)
    wrong_H = rank_H + 1 - right_H
    precision_H = scale * right_H / (scale * right_H + wrong_H)
    return float(np.maximum.accumulate(precision_H[::-1]).sum() / positives)


def _bin_reports(assignment: Assignment, binning: Binning, taken_KG: np.ndarray) -> tuple[BinReport, ...]:
    problem, bin_G = assignment.problem, binning.bin_G()
    hit_KN = assignment.truth_KN >= 0
    # -2 is the bin of detections that took nothing: always kept
    bin_KN = np.where(hit_KN, bin_G[assignment.truth_KN], -2)
    reports = []
    for index, label in enumerate(binning.labels):
        inside_G = bin_G == index
        count = int(inside_G.sum())
        ap_n = missed = None
        if count:
            positives_C = np.bincount(problem.truth.label[inside_G], minlength=len(problem.classes))
            keep_KN = (bin_KN == index) | ~hit_KN
            ap_n = _mean_ap(problem, hit_KN, keep_KN, True, positives_C)
            missed = float(1 - taken_KG[:, inside_G].mean())
        reports.append(BinReport(label, count, ap_n, missed))
    return tuple(reports)


def _pair_report(one: Binning, other: Binning, taken_KG: np.ndarray) -> PairReport:
    one_G, other_G = one.bin_G(), other.bin_G()
    shape = (len(one.labels), len(other.labels))
    count, lost = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    both = (one_G >= 0) & (other_G >= 0)
    np.add.at(count, (one_G[both], other_G[both]), 1)
    np.add.at(lost, (one_G[both], other_G[both]), 1 - taken_KG[:, both].mean(axis=0))
    missed = np.divide(lost, count, out=np.full(shape, np.nan), where=count > 0)
    return PairReport(one.name, other.name, one.labels, other.labels, count, missed)


def _confusions(
    problem: Problem, kind_KN: np.ndarray, nearest_N: np.ndarray, k: int
) -> tuple[tuple[str, str, int], ...]:
    mixed = np.flatnonzero((kind_KN[k] == WRONG_LABEL) | (kind_KN[k] == CONFUSION))
    predicted = problem.found.label[mixed].tolist()
    actual = problem.truth.label[nearest_N[mixed]].tolist()
    counts = Counter(zip(predicted, actual, strict=True))
    return tuple((problem.classes[p], problem.classes[a], count) for (p, a), count in counts.most_common(20))
