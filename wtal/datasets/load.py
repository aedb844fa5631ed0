"""Annotations by the data settings."""

from pathlib import Path

from feature_extraction.errors import UserError
from wtal.datasets.annotations import AnnotationSet, read_activitynet
from wtal.datasets.settings import DataSettings


def load_annotations(settings: DataSettings) -> AnnotationSet:
    """The annotations that `settings` names."""
    if not settings.annotations:
        raise UserError("data.annotations is not set; name an annotation file")
    return read_activitynet(Path(settings.annotations))
