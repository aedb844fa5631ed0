"""Frame-wise and segmental measures of a video cut into actions without gaps: accuracy, edit score, F1@10/25/50.

As ED-TCN defines them (Lea et al., CVPR 2017), and MS-TCN after it (Farha and Gall, CVPR 2019). A segment is a
longest run of frames of one label.

- Accuracy: share of the frames with the right label, background frames too.
- Edit score: 1 - Levenshtein distance of the two orders of segment labels / the longer of the two. Background
  segments are left out first.
- F1@k: in time order each predicted segment looks at the true segment of its label with the highest IoU (of equal
  ones the first), and is right if the IoU is at least k % and that one is not taken; else it is wrong. Background
  segments are left out.

ED-TCN prints the mean over videos of each; MS-TCN the accuracy of all frames together and the F1 of the counts of
all videos together (its edit score is the same mean). The two differ by points, so both are given, by name.

Legend: P predicted segments, Y true segments.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from feature_extraction.errors import UserError

if TYPE_CHECKING:
    import pandas

OVERLAPS = (0.1, 0.25, 0.5)


@dataclass(frozen=True)
class SegmentalResult:
    """Fractions, 0 to 1."""

    accuracy: float
    """Mean over videos."""
    edit: float
    """Mean over videos."""
    f1: dict[float, float]
    """By overlap, mean over videos."""
    pooled_accuracy: float
    """Of all frames together."""
    pooled_f1: dict[float, float]
    """Of the counts of all videos together."""
    videos: int
    frames: int
    background: tuple[str, ...]

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "protocol": "segmental",
            "accuracy": self.accuracy,
            "edit": self.edit,
            "f1": {f"{100 * overlap:g}": value for overlap, value in self.f1.items()},
            "pooled": {
                "accuracy": self.pooled_accuracy,
                "f1": {f"{100 * overlap:g}": value for overlap, value in self.pooled_f1.items()},
            },
            "videos": self.videos,
            "frames": self.frames,
            "background": list(self.background),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """A row for the mean over `videos` (ED-TCN) and one for all videos `pooled` (MS-TCN); columns `accuracy`,
        `edit` and `f1@k`."""
        import pandas

        rows = {
            "videos": {"accuracy": self.accuracy, "edit": self.edit, **_named(self.f1)},
            "pooled": {"accuracy": self.pooled_accuracy, "edit": self.edit, **_named(self.pooled_f1)},
        }
        return pandas.DataFrame.from_dict(rows, orient="index")


def segmental(
    truth: Mapping[str, Sequence[str]],
    predicted: Mapping[str, Sequence[str]],
    background: Collection[str] = (),
    overlaps: Sequence[float] = OVERLAPS,
) -> SegmentalResult:
    """Measure frame labels `predicted` against `truth`, both by video id, one label a frame.

    `background`: labels of no action, left out of edit score and F1. Raises `UserError` for no video, for a video
    without a prediction or of another number of frames (named), and for a background label that no frame has.
    """
    if not truth or not any(len(labels) for labels in truth.values()):
        raise UserError("no video with frame labels; there is nothing to measure")
    accuracy, edit, f1, counts = [], [], [], []
    for video_id in sorted(truth):
        if video_id not in predicted:
            raise UserError(f"video {video_id!r} has frame labels but no prediction")
        true, found = (np.asarray(side[video_id], dtype=object) for side in (truth, predicted))
        if len(true) != len(found):
            raise UserError(
                f"video {video_id!r} has {len(true)} frame labels and {len(found)} predicted ones; "
                "both must be at the same frame rate"
            )
        if not len(true):
            continue
        right = true == found
        runs_Y, runs_P = ([run for run in runs(labels) if run[0] not in background] for labels in (true, found))
        accuracy.append(right.mean())
        edit.append(edit_score([run[0] for run in runs_P], [run[0] for run in runs_Y]))
        hits = [_hits(runs_P, runs_Y, overlap) for overlap in overlaps]
        f1.append([_f1(hit, len(runs_P), len(runs_Y)) for hit in hits])
        counts.append([right.sum(), len(true), len(runs_P), len(runs_Y), *hits])
    seen = {label for side in (truth, predicted) for labels in side.values() for label in labels}
    if unknown := sorted(set(background) - seen):
        raise UserError(
            f"background label {unknown[0]!r} is in no frame; the labels are: {', '.join(sorted(map(str, seen))[:30])}"
        )
    total = np.sum(counts, axis=0).tolist()
    return SegmentalResult(
        float(np.mean(accuracy)),
        float(np.mean(edit)),
        dict(zip(overlaps, np.mean(f1, axis=0).tolist(), strict=True)),
        total[0] / total[1],
        {overlap: _f1(hit, total[2], total[3]) for overlap, hit in zip(overlaps, total[4:], strict=True)},
        len(accuracy),
        total[1],
        tuple(sorted(background)),
    )


def runs(labels: np.ndarray) -> list[tuple[str, int, int]]:
    """(label, first frame, frame after the last) of each longest run of one label."""
    edges = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
    return [(labels[start], start, end) for start, end in zip(edges[:-1], edges[1:], strict=True) if end > start]


def edit_score(found: Sequence[str], true: Sequence[str]) -> float:
    """1 - Levenshtein distance / the longer length; 1 where both are empty."""
    if not found and not true:
        return 1.0
    row = np.arange(len(true) + 1)
    step = np.arange(len(true) + 1)
    other_Y = np.array([*true], dtype=object)
    for count, label in enumerate(found, 1):
        above = row
        row = np.concatenate(([count], np.minimum(above[1:] + 1, above[:-1] + (other_Y != label))))
        row = np.minimum.accumulate(row - step) + step  # insertions along the row
    return 1 - float(row[-1]) / max(len(found), len(true))


def _hits(runs_P: list[tuple[str, int, int]], runs_Y: list[tuple[str, int, int]], overlap: float) -> int:
    taken: set[int] = set()
    for label, start, end in runs_P:
        best, best_iou = -1, 0.0
        for index, (true, true_start, true_end) in enumerate(runs_Y):
            # runs that do not meet have a negative share of their hull
            iou = (min(end, true_end) - max(start, true_start)) / (max(end, true_end) - min(start, true_start))
            if true == label and iou > best_iou:
                best, best_iou = index, iou
        if best >= 0 and best_iou >= overlap:
            taken.add(best)
    return len(taken)


def _f1(hits: int, found: int, true: int) -> float:
    """2 TP / (predicted + true); 0 where there is neither, as the originals have it."""
    return 2 * hits / (found + true) if found + true else 0.0


def _named(f1: Mapping[float, float]) -> dict[str, float]:
    return {f"f1@{100 * overlap:g}": value for overlap, value in f1.items()}
