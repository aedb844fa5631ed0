"""Ground truth and detections as flat arrays: what every evaluator here works on.

Legend: N detections, G ground-truth instances, A ambiguous segments, V videos, C classes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet, Detection


@dataclass(frozen=True)
class Segments:
    """Parallel arrays, in file order. Times in seconds, or in snippets once a protocol says so."""

    start: np.ndarray
    """float64."""
    end: np.ndarray
    """float64."""
    video: np.ndarray
    """int64 index into `Problem.videos`."""
    label: np.ndarray
    """int64 index into `Problem.classes`."""
    score: np.ndarray | None = None
    """float64, detections only."""

    def __len__(self) -> int:
        return len(self.start)

    def take(self, index: np.ndarray) -> "Segments":
        """The rows that `index` (integers or a mask) picks, in its order."""
        score = None if self.score is None else self.score[index]
        return Segments(self.start[index], self.end[index], self.video[index], self.label[index], score)


@dataclass(frozen=True)
class Problem:
    """One evaluation: detections against ground truth over the same videos and classes."""

    classes: tuple[str, ...]
    """Classes with at least one ground-truth instance, in the annotations' order. Only these count."""
    videos: tuple[str, ...]
    """Videos of the ground truth in its order, then videos that only the detections know."""
    known_videos: int
    """How many of `videos` the ground truth knows: the first ones."""
    truth: Segments
    found: Segments
    ambiguous: Segments
    """THUMOS14's Ambiguous segments; `label` is 0 throughout."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the input: labels and videos without ground truth, reversed segments."""
    durations: np.ndarray | None = None
    """float64 `[V]` seconds, NaN where unknown (not positive is unknown too)."""

    def instances_C(self) -> np.ndarray:
        """Ground-truth instances of each class, int64 `[C]`."""
        return np.bincount(self.truth.label, minlength=len(self.classes))


def build_problem(ground_truth: AnnotationSet, predictions: Mapping[str, Sequence[Detection]]) -> Problem:
    """Flatten `ground_truth` and `predictions` (seconds).

    Detections of a class without ground truth are left out (they cannot count) and named in `notes`;
    detections in a video that the ground truth does not know stay (they are false positives) and are counted
    in `notes`, as are instances without length and durations that are not positive. Raises `UserError` for
    ground truth without instances and for scores or times that are not numbers.
    """
    instances = [(instance, video.video_id) for video in ground_truth.videos.values() for instance in video.instances]
    if not instances:
        raise UserError(
            "the ground truth has no action instance in the chosen videos; is it the right file and subset?"
        )
    seen = {instance.label for instance, _ in instances}
    classes = tuple(name for name in ground_truth.classes if name in seen)
    class_index = {name: index for index, name in enumerate(classes)}
    unknown_videos = [video_id for video_id in predictions if video_id not in ground_truth.videos]
    videos = (*ground_truth.videos, *unknown_videos)
    video_index = {video_id: index for index, video_id in enumerate(videos)}

    truth = Segments(
        np.array([instance.start for instance, _ in instances], dtype=np.float64),
        np.array([instance.end for instance, _ in instances], dtype=np.float64),
        np.array([video_index[video_id] for _, video_id in instances], dtype=np.int64),
        np.array([class_index[instance.label] for instance, _ in instances], dtype=np.int64),
    )
    unsure = [
        (start, end, video_index[video.video_id])
        for video in ground_truth.videos.values()
        for start, end in video.ambiguous
    ]
    columns = np.array(unsure, dtype=np.float64).reshape(-1, 3).T
    ambiguous = Segments(columns[0], columns[1], columns[2].astype(np.int64), np.zeros(len(unsure), dtype=np.int64))

    flat, found = _flatten(predictions, video_index, class_index)
    _refuse_bad_numbers(flat, found, videos)
    notes = (*_truth_notes(ground_truth, truth), *_notes(flat, found, unknown_videos, predictions))
    durations = [video.duration for video in ground_truth.videos.values()] + [None] * len(unknown_videos)
    return Problem(
        classes,
        videos,
        len(ground_truth.videos),
        truth,
        found.take(found.label >= 0),
        ambiguous,
        notes,
        np.array([d if d is not None and d > 0 else np.nan for d in durations], dtype=np.float64),
    )


def _flatten(
    predictions: Mapping[str, Sequence[Detection]], video_index: Mapping[str, int], class_index: Mapping[str, int]
) -> tuple[list[Detection], Segments]:
    flat = list(chain.from_iterable(predictions.values()))
    count = len(flat)
    counts = np.fromiter((len(found) for found in predictions.values()), dtype=np.int64, count=len(predictions))
    rows = np.fromiter((video_index[video_id] for video_id in predictions), dtype=np.int64, count=len(predictions))
    try:
        label = np.fromiter((class_index.get(d.label, -1) for d in flat), dtype=np.int64, count=count)
    except TypeError:
        raise UserError("a detection's label is not text; expected a class name") from None
    found = Segments(
        np.fromiter((d.start for d in flat), dtype=np.float64, count=count),
        np.fromiter((d.end for d in flat), dtype=np.float64, count=count),
        np.repeat(rows, counts),
        label,
        np.fromiter((d.score for d in flat), dtype=np.float64, count=count),
    )
    return flat, found


def _refuse_bad_numbers(flat: Sequence[Detection], found: Segments, videos: Sequence[str]) -> None:
    bad_score = np.isnan(found.score)
    bad_time = ~(np.isfinite(found.start) & np.isfinite(found.end))
    for bad, what in ((bad_score, "score"), (bad_time, "time")):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            worst = flat[first]
            raise UserError(
                f"video {videos[found.video[first]]!r}: a detection's {what} is not a number "
                f"([{worst.start}, {worst.end}] {worst.label!r} score {worst.score}; {int(bad.sum())} such); "
                "remove these detections or mend what wrote them"
            )


def _truth_notes(ground_truth: AnnotationSet, truth: Segments) -> tuple[str, ...]:
    """What is wrong with the ground truth itself; `truth.video` counts its videos first."""
    videos = tuple(ground_truth.videos.values())
    notes = []
    empty = np.flatnonzero(truth.end <= truth.start)
    if len(empty):
        names = _some(dict.fromkeys(videos[v].video_id for v in truth.video[empty].tolist()))
        notes.append(
            f"{len(empty)} ground-truth instance(s) end where or before they start ({names}); "
            "no detection can match them, so they count as missed"
        )
    short = [video.video_id for video in videos if video.duration is not None and not video.duration > 0]
    if short:
        notes.append(
            f"{len(short)} video(s) of the ground truth have a duration that is not positive ({_some(short)}); "
            "it is taken as unknown"
        )
    return tuple(notes)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")


def _notes(
    flat: Sequence[Detection],
    found: Segments,
    unknown_videos: Sequence[str],
    predictions: Mapping[str, Sequence[Detection]],
) -> tuple[str, ...]:
    notes = []
    outside = np.flatnonzero(found.label < 0)
    if len(outside):
        labels = Counter(flat[index].label for index in outside)
        names = ", ".join(f"{name!r} ({count})" for name, count in labels.most_common(5))
        more = f" and {len(labels) - 5} more labels" if len(labels) > 5 else ""
        notes.append(f"{len(outside)} detection(s) have a label without ground truth and are left out: {names}{more}")
    if unknown_videos:
        count = sum(len(predictions[video_id]) for video_id in unknown_videos)
        notes.append(
            f"{len(unknown_videos)} video(s) with {count} detection(s) are not in the ground truth "
            f"({_some(unknown_videos)}); "
            "their detections count as false positives"
        )
    reversed_count = int(np.sum(found.end < found.start))
    if reversed_count:
        notes.append(f"{reversed_count} detections end before they start; they overlap nothing")
    return tuple(notes)
