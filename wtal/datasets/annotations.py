"""What is known of a video: its classes, and where it is known, its action instances. Times are seconds everywhere.

The ActivityNet JSON layout is the native format both ways; the other layouts' readers are in this package's other files.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feature_extraction.errors import UserError
from feature_extraction.files import read_json, write_json


@dataclass(frozen=True)
class Instance:
    """One action instance: `start` and `end` in seconds, `label` a class name."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Detection:
    """One predicted instance: `start` and `end` in seconds, `label` a class name, `score` higher is surer."""

    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True)
class VideoAnnotation:
    """One video. `labels` are its video-level classes (the weak supervision); `instances` may be empty."""

    video_id: str
    subset: str
    labels: tuple[str, ...]
    instances: tuple[Instance, ...] = ()
    duration: float | None = None
    """Seconds; None where the source does not say."""
    ambiguous: tuple[tuple[float, float], ...] = ()
    """THUMOS14's Ambiguous segments, (start, end) in seconds."""


@dataclass(frozen=True)
class AnnotationSet:
    """All videos of a data set, by id, and its class names in index order."""

    classes: tuple[str, ...]
    videos: dict[str, VideoAnnotation] = field(default_factory=dict)

    def subset(self, *names: str) -> "AnnotationSet":
        """The videos whose subset is one of `names` (letter case ignored); an unknown name is a `UserError`."""
        known = {video.subset.lower() for video in self.videos.values()}
        wanted = {name.lower() for name in names}
        if missing := wanted - known:
            raise UserError(
                f"subset {', '.join(sorted(missing))!r} is in no annotation; the subsets are: {', '.join(sorted(known))}"
            )
        return AnnotationSet(
            self.classes, {key: video for key, video in self.videos.items() if video.subset.lower() in wanted}
        )


def read_activitynet(path: Path) -> AnnotationSet:
    """Read ActivityNet JSON: `{"database": {id: {"subset", "duration", "annotations": [{"segment", "label"}]}}}`.

    Segments may be numbers or strings (the json + split layout writes strings). A video-level `"labels"` list, if
    there, is the weak label; otherwise the classes of its annotations are. An annotation without a segment is a
    video-level label. Class order: the file's own `"classes"` list if it has one, else alphabetical.
    Raises `UserError` naming the file, the video and the bad value.
    """
    content = read_json(path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise UserError(f"{path}: no 'database' object; expected ActivityNet JSON")
    videos = {video_id: _read_video(path, video_id, entry) for video_id, entry in database.items()}
    seen = sorted({label for video in videos.values() for label in video.labels})
    classes = tuple(content.get("classes") or seen)
    if unknown := sorted(set(seen) - set(classes)):
        raise UserError(f"{path}: label {unknown[0]!r} is not in the file's 'classes' ({', '.join(classes[:5])}, ...)")
    return AnnotationSet(classes, videos)


def _read_video(path: Path, video_id: str, entry: Any) -> VideoAnnotation:
    if not isinstance(entry, dict):
        raise UserError(f"{path}: video {video_id!r} is not an object")
    instances, labels = [], list(entry.get("labels") or [])
    for annotation in entry.get("annotations") or []:
        try:
            label = annotation["label"]
            if annotation.get("segment") is not None:
                start, end = (float(second) for second in annotation["segment"])
                if not (math.isfinite(start) and math.isfinite(end)):
                    raise ValueError
                instances.append(Instance(start, end, label))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(
                f"{path}: video {video_id!r} has a bad annotation {annotation!r}; "
                'expected {"label": name, "segment": [start seconds, end seconds]}'
            ) from None
        if "labels" not in entry and label not in labels:
            labels.append(label)
    duration = entry.get("duration")
    return VideoAnnotation(
        video_id,
        str(entry.get("subset", "")),
        tuple(labels),
        tuple(instances),
        None if duration is None else float(duration),
        tuple((float(start), float(end)) for start, end in entry.get("ambiguous") or []),
    )


def write_activitynet(path: Path, annotations: AnnotationSet) -> None:
    """Write `annotations` as ActivityNet JSON; `read_activitynet` gives the same set back."""
    database = {}
    for video in annotations.videos.values():
        entry: dict[str, Any] = {"subset": video.subset}
        if video.duration is not None:
            entry["duration"] = video.duration
        entry["labels"] = list(video.labels)
        entry["annotations"] = [
            {"segment": [instance.start, instance.end], "label": instance.label} for instance in video.instances
        ]
        if video.ambiguous:
            entry["ambiguous"] = [list(segment) for segment in video.ambiguous]
        database[video.video_id] = entry
    write_json(path, {"version": "wtal", "taxonomy": [], "classes": list(annotations.classes), "database": database})


def read_predictions(path: Path) -> dict[str, list[Detection]]:
    """Read ActivityNet predictions `{"results": {id: [{"label", "segment", "score"}]}}`; times in seconds."""
    content = read_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise UserError(f"{path}: no 'results' object; expected ActivityNet predictions")
    detections: dict[str, list[Detection]] = {}
    for video_id, entries in results.items():
        try:
            detections[video_id] = [
                Detection(float(e["segment"][0]), float(e["segment"][1]), e["label"], float(e["score"])) for e in entries
            ]
        except (KeyError, TypeError, ValueError, IndexError):
            raise UserError(
                f"{path}: video {video_id!r} has a bad prediction; "
                'expected {"label": name, "segment": [start, end], "score": number}'
            ) from None
    return detections


def write_predictions(path: Path, detections: dict[str, Iterable[Detection]], details: str = "") -> None:
    """Write detections (seconds) as ActivityNet predictions."""
    results = {
        video_id: [{"label": d.label, "segment": [d.start, d.end], "score": d.score} for d in found]
        for video_id, found in detections.items()
    }
    external = {"used": bool(details), "details": details}
    write_json(path, {"version": "VERSION 1.3", "results": results, "external_data": external})
