"""Annotations of any known layout, by the format's name."""

from collections.abc import Callable
from pathlib import Path

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet, read_activitynet
from wtal.datasets.settings import DataSettings
from wtal.datasets.splits import without

Reader = Callable[[Path, Path | None], AnnotationSet]


def _activitynet(path: Path, extra: Path | None) -> AnnotationSet:
    if extra is not None:
        raise UserError(f"data.annotations_extra {extra}: the activitynet layout has no second file")
    return read_activitynet(path)


FORMATS: dict[str, Reader] = {
    "activitynet": _activitynet,
}


def load_annotations(settings: DataSettings) -> AnnotationSet:
    """Read `settings.annotations` and leave out the videos of the exclusion list `settings.exclude`.

    Raises `UserError` for no path, a file that is missing or not of the named layout, and annotations without videos.
    """
    if not settings.annotations:
        raise UserError("data.annotations is not set; give the path of an annotation file")
    extra = Path(settings.annotations_extra) if settings.annotations_extra else None
    return without(read_annotations(Path(settings.annotations), settings.format, extra), settings.exclude)


def read_annotations(path: Path, format: str, extra: Path | None = None) -> AnnotationSet:
    """Read annotations of the layout `format`, a key of `FORMATS`; `extra` is the layout's second path.

    Raises `UserError` for an unknown format, a file that is missing or not of that layout, and no videos.
    """
    if format not in FORMATS:
        raise UserError(f"annotation format {format!r} is not one of {', '.join(FORMATS)}")
    annotations = FORMATS[format](Path(path), extra)
    if not annotations.videos:
        raise UserError(f"{path}: no videos in it")
    return annotations
