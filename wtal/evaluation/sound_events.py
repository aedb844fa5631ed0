"""F1 of weakly labelled sound event detection: event-based with collars, segment-based, clip-level.

As DCASE task 4 measures it (sed_eval's definitions, own code). Times are seconds. Each reads two mappings
from clip id to events; an event is anything with `start`, `end` and `label` (`Instance`, `Detection`).
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

if TYPE_CHECKING:
    import pandas


class Event(Protocol):
    """`start` and `end` in seconds, `label` a class name."""

    start: float
    end: float
    label: str


Events = Mapping[str, Iterable[Event]]


@dataclass(frozen=True)
class Counts:
    """Hits, false alarms and misses of a class."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
        )

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), 0..1; NaN where there is nothing in reference and estimate."""
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else math.nan

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN where nothing was estimated."""
        total = self.true_positive + self.false_positive
        return self.true_positive / total if total else math.nan

    @property
    def recall(self) -> float:
        """TP / (TP + FN); NaN where the reference is empty."""
        total = self.true_positive + self.false_negative
        return self.true_positive / total if total else math.nan


@dataclass(frozen=True)
class F1Result:
    """F1 by class, its mean over classes, and F1 of the summed counts."""

    per_class: dict[str, Counts]

    @property
    def macro(self) -> float:
        """Mean of the classes' F1, over classes that occur in reference or estimate (the DCASE headline)."""
        return _mean(counts.f1 for counts in self.per_class.values())

    @property
    def macro_precision(self) -> float:
        """Mean of the classes' precision, over classes that were estimated."""
        return _mean(counts.precision for counts in self.per_class.values())

    @property
    def macro_recall(self) -> float:
        """Mean of the classes' recall, over classes of the reference."""
        return _mean(counts.recall for counts in self.per_class.values())

    @property
    def micro(self) -> float:
        """F1 of the counts summed over classes."""
        return self.total.f1

    @property
    def total(self) -> Counts:
        """The counts summed over classes."""
        return sum(self.per_class.values(), Counts())

    def to_frame(self) -> "pandas.DataFrame":
        """A row a class: `tp`, `fp`, `fn`, and the fractions `precision`, `recall` and `f1` (NaN where undefined)."""
        import pandas

        rows = [
            (c.true_positive, c.false_positive, c.false_negative, c.precision, c.recall, c.f1)
            for c in self.per_class.values()
        ]
        columns = ["tp", "fp", "fn", "precision", "recall", "f1"]
        return pandas.DataFrame(rows, pandas.Index(list(self.per_class), name="class", dtype=object), columns)


def _mean(values: Iterable[float]) -> float:
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def event_f1(
    reference: Events, estimate: Events, *, onset_collar: float = 0.2, offset_collar: float = 0.2,
    offset_share: float = 0.2,
) -> F1Result:  # fmt: skip
    """Event-based F1: an estimate fits a reference of its class and clip when the onsets differ by at most
    `onset_collar` seconds and the offsets by at most max(`offset_collar`, `offset_share` x reference length).

    As many pairs as possible are matched (optimal, not greedy, bipartite matching).
    """
    counts: dict[str, Counts] = {}
    for clip in _clips(reference, estimate):
        ours, theirs = _by_label(reference.get(clip, ())), _by_label(estimate.get(clip, ()))
        for label in ours.keys() | theirs.keys():
            ref, est = ours.get(label, ()), theirs.get(label, ())
            matched = _matches(ref, est, onset_collar, offset_collar, offset_share)
            counts[label] = counts.get(label, Counts()) + Counts(matched, len(est) - matched, len(ref) - matched)
    return F1Result(dict(sorted(counts.items())))


def _matches(ref: Collection[Event], est: Collection[Event], onset: float, offset: float, share: float) -> int:
    if not ref or not est:
        return 0
    ref_start, ref_end = np.array([(e.start, e.end) for e in ref], np.float64).T[:, :, None]
    est_start, est_end = np.array([(e.start, e.end) for e in est], np.float64).T[:, None, :]
    # without an epsilon: adding one moves the DESED numbers away from the published evaluator's
    allowed = np.maximum(offset, share * (ref_end - ref_start))
    fits = (np.abs(ref_start - est_start) <= onset) & (np.abs(ref_end - est_end) <= allowed)
    return int((maximum_bipartite_matching(csr_matrix(fits), perm_type="column") >= 0).sum()) if fits.any() else 0


def segment_f1(reference: Events, estimate: Events, *, segment: float = 1.0) -> F1Result:
    """Segment-based F1: a class is active in each `segment`-second cell that one of its events touches."""
    counts: dict[str, Counts] = {}
    for clip in _clips(reference, estimate):
        ours, theirs = _by_label(reference.get(clip, ())), _by_label(estimate.get(clip, ()))
        for label in ours.keys() | theirs.keys():
            ref, est = _cells(ours.get(label, ()), segment), _cells(theirs.get(label, ()), segment)
            counts[label] = counts.get(label, Counts()) + Counts(len(ref & est), len(est - ref), len(ref - est))
    return F1Result(dict(sorted(counts.items())))


def clip_f1(reference: Mapping[str, Collection[str]], estimate: Mapping[str, Collection[str]]) -> F1Result:
    """Clip-level F1 of sets of class names per clip."""
    counts: dict[str, Counts] = {}
    for clip in _clips(reference, estimate):
        ours, theirs = set(reference.get(clip, ())), set(estimate.get(clip, ()))
        for label in ours | theirs:
            here = Counts(int(label in ours & theirs), int(label in theirs - ours), int(label in ours - theirs))
            counts[label] = counts.get(label, Counts()) + here
    return F1Result(dict(sorted(counts.items())))


def _clips(reference: Mapping[str, object], estimate: Mapping[str, object]) -> list[str]:
    return sorted(reference.keys() | estimate.keys())


def _by_label(events: Iterable[Event]) -> dict[str, list[Event]]:
    grouped = defaultdict(list)
    for event in events:
        grouped[event.label].append(event)
    return grouped


def _cells(events: Iterable[Event], segment: float) -> set[int]:
    cells: set[int] = set()
    for event in events:
        cells.update(range(math.floor(event.start / segment), math.ceil(event.end / segment)))
    return cells
