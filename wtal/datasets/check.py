"""What is odd in annotations: labels against segments, times, duplicates, classes; and two sources compared.

Every finding names its videos. A finding is a fact, not always a fault: the field's own files have many.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from feature_extraction.store.grid import TimeGrid
from wtal.datasets.annotations import AnnotationSet, Instance, VideoAnnotation
from wtal.datasets.features import FeatureSet
from wtal.datasets.splits import EXCLUSIONS

SAME_TIME = 1e-3
"""Seconds; times of two sources that differ by less are equal."""


@dataclass(frozen=True)
class Finding:
    """One kind of oddity and everything that has it."""

    name: str
    """Identifier, stable for machines."""
    text: str
    """What it means, in words."""
    count: int
    """How many items (videos, segments or classes) have it."""
    details: dict[str, str]
    """Video id or class name to what exactly is odd there."""


@dataclass(frozen=True)
class SubsetFacts:
    """Counts of one subset."""

    videos: int
    instances: int
    hours: float | None
    """None where no duration is known."""
    multi_label_videos: int
    """Videos with several video-level labels."""
    multi_class_videos: int
    """Videos whose segments have several classes."""
    below_snippet: int
    """Segments shorter than one snippet."""
    zero_after_rounding: int
    """Segments of no length once both times are rounded to the snippet grid (the thumos-snippet protocol)."""
    median_seconds: float | None
    """Median length of a segment."""


def facts(annotations: AnnotationSet, grid: TimeGrid) -> dict[str, SubsetFacts]:
    """Counts by subset, in alphabetical order."""
    found = {}
    for subset in sorted({video.subset for video in annotations.videos.values()}):
        videos = [video for video in annotations.videos.values() if video.subset == subset]
        times = np.array([(i.start, i.end) for video in videos for i in video.instances]).reshape(-1, 2)
        lengths = times[:, 1] - times[:, 0]
        edges = np.round(grid.to_snippets(times))
        durations = [video.duration for video in videos if video.duration is not None]
        found[subset] = SubsetFacts(
            videos=len(videos),
            instances=len(times),
            hours=sum(durations) / 3600 if durations else None,
            multi_label_videos=sum(len(video.labels) > 1 for video in videos),
            multi_class_videos=sum(len(_classes_of(video)) > 1 for video in videos),
            below_snippet=int((lengths < grid.snippet_seconds).sum()),
            zero_after_rounding=int((edges[:, 0] == edges[:, 1]).sum()),
            median_seconds=float(np.median(lengths)) if len(lengths) else None,
        )
    return found


def check_annotations(annotations: AnnotationSet, grid: TimeGrid) -> list[Finding]:
    """Oddities of one source; findings without anything in them are left out."""
    videos = list(annotations.videos.values())

    def each(detail: Callable[[VideoAnnotation], str]) -> Iterator[tuple[str, str]]:
        return ((video.video_id, detail(video)) for video in videos)

    def listed(wanted: Callable[[Instance], bool]) -> Iterator[tuple[str, str]]:
        return each(lambda video: _listed(filter(wanted, video.instances)))

    def mislabelled(video: VideoAnnotation) -> str:
        return _difference(set(video.labels), _classes_of(video)) if video.instances else ""

    def repeated(video: VideoAnnotation) -> str:
        return _listed(instance for instance, count in Counter(video.instances).items() if count > 1)

    def unsure(video: VideoAnnotation) -> str:
        return "" if video.instances or not video.ambiguous else f"{len(video.ambiguous)} Ambiguous"

    rounding = f"videos with segments of no length after rounding to snippets of {grid.snippet_seconds:g} s"
    excluded = ((key, _excluded_by(key)) for key in EXCLUSIONS["thumos14-210"] if key in annotations.videos)
    return _findings(
        ("labels_differ_from_segments", "videos whose labels are not the classes of their segments", each(mislabelled)),
        ("no_label", "videos without a label", each(lambda v: "" if v.labels else f"subset {v.subset}")),
        ("segment_past_end", "videos with segments past their end", each(_past_end)),
        ("starts_before_zero", "videos with segments that start before 0 s", listed(lambda i: i.start < 0)),
        ("no_length", "videos with segments that end where they start, or before", listed(lambda i: i.end <= i.start)),
        ("duplicate_segment", "videos with the same segment and class more than once", each(repeated)),
        ("zero_after_rounding", rounding, listed(lambda i: _vanishes(i, grid))),
        ("doubled_class", "classes whose every segment is also one of another class", _doubled(videos)),
        ("class_without_video", "classes that no video has", _unused_classes(annotations)),
        ("class_order", "classes that are not in alphabetical order", _unsorted(annotations.classes)),
        ("ambiguous_only", "videos with Ambiguous segments and no others", each(unsure)),
        ("known_exclusion", "videos that published work leaves out (data.exclude)", excluded),
    )


def compare(first: AnnotationSet, second: AnnotationSet) -> list[Finding]:
    """Where two sources disagree; in the details the first source's value stands first."""
    pairs = [(video, second.videos[key]) for key, video in first.videos.items() if key in second.videos]

    def each(detail: Callable[[VideoAnnotation, VideoAnnotation], str]) -> Iterator[tuple[str, str]]:
        return ((a.video_id, detail(a, b)) for a, b in pairs)

    return _findings(
        ("only_in_first", "videos of the first source only", _only(first, second)),
        ("only_in_second", "videos of the second source only", _only(second, first)),
        ("class_list_differs", "classes of one source only", _class_difference(first, second)),
        ("class_index_differs", "classes with another index", _index_difference(first, second)),
        ("subset_differs", "videos in another part", _subset_difference(pairs)),
        (
            "labels_differ",
            "videos with other labels (extra and lacking in the first source)",
            each(lambda a, b: _difference(set(a.labels), set(b.labels))),
        ),
        ("segments_differ", "videos with other segments", each(_segment_difference)),
        ("duration_differs", "videos whose durations differ by more than 0.5 s", each(_duration_difference)),
    )


def check_features(annotations: AnnotationSet, features: FeatureSet) -> list[Finding]:
    """Annotated videos without features, and features whose length does not fit the annotated duration."""
    absent, odd = [], []
    for video in annotations.videos.values():
        if video.video_id not in features:
            absent.append((video.video_id, f"subset {video.subset}"))
            continue
        covered = features.grid.to_seconds(features.length(video.video_id))
        if video.duration is not None and abs(covered - video.duration) > 2 * features.grid.snippet_seconds:
            odd.append((video.video_id, f"features cover {covered:.2f} s, annotated are {video.duration:.2f} s"))
    return _findings(
        ("missing_features", f"videos without features in all of {', '.join(features.streams)}", absent),
        ("feature_length", "videos with features longer or shorter than they are by over two snippets", odd),
    )


def _findings(*rows: tuple[str, str, Iterable[tuple[str, str]]]) -> list[Finding]:
    """A finding for each (name, text, items) whose items say anything."""
    details = [{key: detail for key, detail in items if detail} for _, _, items in rows]
    return [Finding(row[0], row[1], len(own), own) for row, own in zip(rows, details, strict=True) if own]


def _classes_of(video: VideoAnnotation) -> set[str]:
    return {instance.label for instance in video.instances}


def _difference(first: set[str], second: set[str]) -> str:
    parts = [f"extra {name}" for name in sorted(first - second)]
    return ", ".join(parts + [f"lacks {name}" for name in sorted(second - first)])


def _past_end(video: VideoAnnotation) -> str:
    if video.duration is None:
        return ""
    late = [instance.end for instance in video.instances if instance.end > video.duration]
    return f"{len(late)} of {len(video.instances)}, up to {max(late):.2f} s of {video.duration:.2f} s" if late else ""


def _listed(instances: Iterable[Instance]) -> str:
    return ", ".join(f"{i.label} {i.start:g}-{i.end:g} s" for i in instances)


def _vanishes(instance: Instance, grid: TimeGrid) -> bool:
    return round(grid.to_snippets(instance.start)) == round(grid.to_snippets(instance.end))


def _doubled(videos: list[VideoAnnotation]) -> Iterable[tuple[str, str]]:
    segments = Counter(instance.label for video in videos for instance in video.instances)
    shared: Counter[tuple[str, str]] = Counter()
    holders: Counter[tuple[str, str]] = Counter()
    for video in videos:
        at: dict[tuple[float, float], list[str]] = {}
        for instance in video.instances:
            at.setdefault((instance.start, instance.end), []).append(instance.label)
        pairs = Counter((a, b) for labels in at.values() for a in labels for b in labels if a != b)
        shared.update(pairs)
        holders.update(set(pairs))
    for (label, other), count in sorted(shared.items()):
        if count == segments[label]:
            yield label, f"all {count} segments in {holders[label, other]} videos are also {other}"


def _unused_classes(annotations: AnnotationSet) -> Iterable[tuple[str, str]]:
    used = {label for video in annotations.videos.values() for label in video.labels}
    return ((name, f"index {i}") for i, name in enumerate(annotations.classes) if name not in used)


def _unsorted(classes: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    return (
        (name, f"index {i}, {wanted} in alphabetical order")
        for i, name in enumerate(classes)
        if (wanted := sorted(classes).index(name)) != i
    )


def _excluded_by(video_id: str) -> str:
    return "left out by " + ", ".join(name for name, gone in EXCLUSIONS.items() if video_id in gone)


def _only(here: AnnotationSet, there: AnnotationSet) -> Iterable[tuple[str, str]]:
    return (
        (key, f"subset {video.subset}, {len(video.instances)} segments")
        for key, video in here.videos.items()
        if key not in there.videos
    )


def _class_difference(first: AnnotationSet, second: AnnotationSet) -> Iterable[tuple[str, str]]:
    for name in sorted(set(first.classes) ^ set(second.classes)):
        yield name, "first source only" if name in first.classes else "second source only"


def _index_difference(first: AnnotationSet, second: AnnotationSet) -> Iterable[tuple[str, str]]:
    for index, name in enumerate(first.classes):
        if name in second.classes and second.classes.index(name) != index:
            yield name, f"{index} and {second.classes.index(name)}"


def _subset_difference(pairs: list[tuple[VideoAnnotation, VideoAnnotation]]) -> Iterable[tuple[str, str]]:
    # Sources name the parts differently ("validation" is "train" elsewhere): the usual counterpart is no
    # difference.
    usual = {a.subset: Counter() for a, _ in pairs}
    for a, b in pairs:
        usual[a.subset][b.subset] += 1
    for a, b in pairs:
        if b.subset != usual[a.subset].most_common(1)[0][0]:
            yield a.video_id, f"{a.subset} and {b.subset}"


def _duration_difference(first: VideoAnnotation, second: VideoAnnotation) -> str:
    if first.duration is None or second.duration is None or not abs(first.duration - second.duration) > 0.5:
        return ""
    return f"{first.duration:.2f} s and {second.duration:.2f} s"


def _segment_difference(first: VideoAnnotation, second: VideoAnnotation) -> str:
    left = list(second.instances)
    alone = []
    for instance in first.instances:
        twin = next((other for other in left if _same(instance, other)), None)
        left.remove(twin) if twin else alone.append(instance)
    parts = [f"first only: {_listed(alone)}"] if alone else []
    return "; ".join(parts + ([f"second only: {_listed(left)}"] if left else []))


def _same(a: Instance, b: Instance) -> bool:
    return a.label == b.label and abs(a.start - b.start) < SAME_TIME and abs(a.end - b.end) < SAME_TIME
