"""Detection mAP. A number means nothing without its protocol, so the protocol is always named.

- `activitynet`: the official ActivityNet evaluator, times in seconds. Per class, detections by falling score;
  each takes the unused ground truth of highest tIoU in its video and is right if tIoU >= threshold. AP is the
  area under the monotone envelope of precision over recall.
- `thumos-snippet`: the convention of the CO2-Net family. All times rounded to snippets, `round(t * 25 / 16)`;
  detections that share a snippet with an Ambiguous segment are dropped; then as `activitynet`.
- `thumos-official`: the THUMOS challenge's evaluator. Per class and video the ground truths, in file order,
  each take the free detection of highest overlap (intersection over hull), right if overlap > threshold; a
  detection left over is wrong unless it overlaps an Ambiguous segment, then it is ignored. AP is the mean
  precision at the hits.

In all three the mean is over the classes with ground truth; one of them without any detection has AP 0.

Ties. Equal scores: by the video's name, then by place in the video's list, in matching and in the ranking, so
that no result hangs on the order of the videos in a file (the Matlab original goes through them by name with a
stable sort; the Python ones leave it to the sorting routine of the day). Equal overlaps: in `activitynet` and
`thumos-snippet` the ground truth that comes last in the video's list, as the originals' reversed `argsort` has
it; in `thumos-official` the detection of higher score, then the earlier one. Segments without length have
overlap 0 with everything.

Legend: K thresholds, C classes, N detections, G ground truths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from feature_extraction.errors import UserError
from wtal.config.evaluation import ACTIVITYNET_TIOU, THUMOS_TIOU, check_tiou
from wtal.datasets.annotations import AnnotationSet, Detection
from wtal.evaluation.detection import average_precision
from wtal.evaluation.detection.arrays import Problem, build_problem
from wtal.evaluation.detection.matching import Side, greedy_match, intersection_over_hull, intersection_over_union
from wtal.evaluation.detection.thumos import on_snippets, touches_ambiguous

if TYPE_CHECKING:
    import pandas

AVERAGES = {
    # the averages that papers print, by the thresholds they are over
    "0.1-0.5": (0.1, 0.2, 0.3, 0.4, 0.5),
    "0.3-0.7": (0.3, 0.4, 0.5, 0.6, 0.7),
    "0.1-0.7": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    "0.5-0.95": ACTIVITYNET_TIOU,
}


@dataclass(frozen=True)
class Assignment:
    """Detections by falling score (ties by video name, then place) and what became of each at each threshold."""

    problem: Problem
    """`problem.found` is in falling order of score."""
    tiou: tuple[float, ...]
    truth_KN: np.ndarray
    """int64: index of the ground truth that the detection took, -1 if none."""
    counted_KN: np.ndarray
    """bool: False where a detection is neither right nor wrong (ignored)."""


@dataclass(frozen=True)
class Protocol:
    """The three parts that make a protocol."""

    prepare: Callable[[Problem], Problem]
    assign: Callable[[Problem, Sequence[float]], Assignment]
    average_precision: Callable[[np.ndarray, int], float]
    resampled_precision: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """The same, of resampled videos (`wtal.evaluation.bootstrap`)."""
    default_tiou: tuple[float, ...]
    uses_ambiguous: bool = False
    """Whether Ambiguous segments of the ground truth matter."""


@dataclass(frozen=True)
class DetectionResult:
    """Detection AP by threshold and class. All values are fractions, 0 to 1."""

    protocol: str
    tiou: tuple[float, ...]
    classes: tuple[str, ...]
    """Classes with ground truth: the columns of `ap_KC`."""
    ap_KC: np.ndarray
    instances_C: np.ndarray
    """Ground-truth instances of each class."""
    detections: int
    """Detections that were ranked (after labels without ground truth and dropped ones are gone)."""
    videos: int
    """Videos of the ground truth."""
    notes: tuple[str, ...] = ()

    @property
    def mAP(self) -> list[float]:
        """Mean over classes, in the order of `tiou`."""
        return [float(value) for value in self.ap_KC.mean(axis=1)]

    @property
    def average_mAP(self) -> float:
        """Mean of `mAP` over the thresholds given."""
        return float(np.mean(self.ap_KC.mean(axis=1)))

    @property
    def averages(self) -> dict[str, float]:
        """Those of `AVERAGES` whose thresholds were all evaluated."""
        return averages_of(self.tiou, self.mAP)

    def to_frame(self) -> "pandas.DataFrame":
        """One row a class: AP at each threshold, their mean, and the number of instances."""
        import pandas

        frame = pandas.DataFrame(
            self.ap_KC.T, pandas.Index(self.classes, name="class"), [f"AP@{t:g}" for t in self.tiou]
        )
        return frame.assign(average=self.ap_KC.mean(axis=0), instances=self.instances_C)

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "protocol": self.protocol,
            "tiou": list(self.tiou),
            "mAP": self.mAP,
            "average_mAP": self.average_mAP,
            "averages": self.averages,
            "AP": {name: [float(v) for v in self.ap_KC[:, c]] for c, name in enumerate(self.classes)},
            "classes": len(self.classes),
            "videos": self.videos,
            "instances": int(self.instances_C.sum()),
            "detections": self.detections,
            "notes": list(self.notes),
        }


def averages_of(tiou: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """The means of `values` (one a threshold) over those sets of `AVERAGES` that `tiou` holds in full."""
    by_threshold = {round(float(threshold), 6): value for threshold, value in zip(tiou, values, strict=True)}
    return {
        name: float(np.mean([by_threshold[threshold] for threshold in thresholds]))
        for name, thresholds in AVERAGES.items()
        if all(threshold in by_threshold for threshold in thresholds)
    }


def detection_map(
    ground_truth: AnnotationSet,
    predictions: Mapping[str, Sequence[Detection]],
    protocol: str = "activitynet",
    tiou: Sequence[float] | None = None,
) -> DetectionResult:
    """AP of `predictions` (seconds) by threshold and class under a protocol of `PROTOCOLS`.

    `tiou`: thresholds in (0, 1]; None takes the protocol's usual ones. Videos are those of `ground_truth`;
    detections elsewhere are false positives. Raises `UserError` for an unknown protocol, a threshold outside
    (0, 1], ground truth without instances, and scores or times that are not numbers.
    """
    return result_of(assign(ground_truth, predictions, protocol, tiou), protocol)


def assign(
    ground_truth: AnnotationSet,
    predictions: Mapping[str, Sequence[Detection]],
    protocol: str = "activitynet",
    tiou: Sequence[float] | None = None,
) -> Assignment:
    """Which detection took which ground truth; arguments and errors as of `detection_map`."""
    rules = protocol_named(protocol)
    thresholds = tuple(float(threshold) for threshold in (rules.default_tiou if tiou is None else tiou))
    check_tiou(thresholds)
    problem = build_problem(ground_truth, predictions)
    assignment = rules.assign(rules.prepare(problem), thresholds)
    notes = (*_ambiguous_notes(problem, protocol), *_tie_notes(assignment.problem))
    return replace(assignment, problem=replace(assignment.problem, notes=(*problem.notes, *notes)))


def _ambiguous_notes(problem: Problem, protocol: str) -> tuple[str, ...]:
    if not protocol_named(protocol).uses_ambiguous or len(problem.ambiguous):
        return ()
    return (
        f"{protocol} leaves out detections on Ambiguous segments, and this ground truth has none, so they count as "
        "wrong; THUMOS14's are in Ambiguous_test.txt of the challenge's txt files and of the npy layout "
        "(on the command line: --ambiguous FILE)",
    )


def _tie_notes(problem: Problem) -> tuple[str, ...]:
    """How many of the detections, which are by falling score, share theirs with another of their class."""
    tied = 0
    for rows in rows_by_class(problem):
        equal = np.diff(problem.found.score[rows]) == 0
        tied += int(np.count_nonzero(np.append(equal, False) | np.append(False, equal)))
    if not tied:
        return ()
    return (
        f"{tied} of {len(problem.found)} detections share their score with another of their class; "
        "such ties go by the video's name, then by place in its list",
    )


def result_of(assignment: Assignment, protocol: str) -> DetectionResult:
    """The AP of an assignment that was made under `protocol`."""
    problem = assignment.problem
    return DetectionResult(
        protocol,
        assignment.tiou,
        problem.classes,
        class_precisions(assignment, protocol_named(protocol)),
        problem.instances_C(),
        len(problem.found),
        problem.known_videos,
        problem.notes,
    )


def class_precisions(assignment: Assignment, rules: Protocol) -> np.ndarray:
    """AP of each threshold and class, float64 `[K, C]`."""
    problem = assignment.problem
    ap_KC = np.zeros((len(assignment.tiou), len(problem.classes)))
    instances_C = problem.instances_C()
    for c, rows in enumerate(rows_by_class(problem)):
        for k in range(len(assignment.tiou)):
            hit = assignment.truth_KN[k, rows] >= 0
            ap_KC[k, c] = rules.average_precision(hit[assignment.counted_KN[k, rows]], int(instances_C[c]))
    return ap_KC


def rows_by_class(problem: Problem) -> list[np.ndarray]:
    """For each class the rows of `problem.found`, in their order."""
    order_N = np.argsort(problem.found.label, kind="stable")
    return np.split(order_N, np.cumsum(np.bincount(problem.found.label, minlength=len(problem.classes)))[:-1])


def by_score(problem: Problem) -> Problem:
    """The same problem with detections in falling order of score; equal scores stay by video name, then place."""
    return replace(problem, found=problem.found.take(np.argsort(-problem.found.score, kind="stable")))


def _unchanged(problem: Problem) -> Problem:
    return problem


def _sides(problem: Problem) -> tuple[Side, Side]:
    found, truth, classes = problem.found, problem.truth, len(problem.classes)
    return (
        Side(found.start, found.end, found.video * classes + found.label),
        Side(truth.start, truth.end, truth.video * classes + truth.label),
    )


def _detections_choose(problem: Problem, tiou: Sequence[float]) -> Assignment:
    problem = by_score(problem)
    detections, truths = _sides(problem)
    truth_KN = greedy_match(detections, truths, np.asarray(tiou), intersection_over_union, last_of_equal=True)
    return Assignment(problem, tuple(tiou), truth_KN, np.ones(truth_KN.shape, dtype=bool))


def _truths_choose(problem: Problem, tiou: Sequence[float]) -> Assignment:
    problem = by_score(problem)
    detections, truths = _sides(problem)
    found_KG = greedy_match(truths, detections, np.asarray(tiou), intersection_over_hull, strict=True)
    truth_KN = np.full((len(tiou), len(problem.found)), -1, dtype=np.int64)
    k, g = np.nonzero(found_KG >= 0)
    truth_KN[k, found_KG[k, g]] = g
    return Assignment(
        problem, tuple(tiou), truth_KN, (truth_KN >= 0) | ~touches_ambiguous(problem.found, problem.ambiguous)
    )


PROTOCOLS = {
    "activitynet": Protocol(
        _unchanged,
        _detections_choose,
        average_precision.interpolated,
        average_precision.resampled_interpolated,
        ACTIVITYNET_TIOU,
    ),
    "thumos-snippet": Protocol(
        on_snippets,
        _detections_choose,
        average_precision.interpolated,
        average_precision.resampled_interpolated,
        THUMOS_TIOU,
        uses_ambiguous=True,
    ),
    "thumos-official": Protocol(
        _unchanged,
        _truths_choose,
        average_precision.non_interpolated,
        average_precision.resampled_non_interpolated,
        THUMOS_TIOU,
        uses_ambiguous=True,
    ),
}


def protocol_named(name: str) -> Protocol:
    """The protocol called `name`, or a `UserError` with the names there are."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}; there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
