"""Annotations from other tools: one file a format, each a function `path -> AnnotationSet` (times in
seconds)."""

from collections.abc import Callable
from pathlib import Path

from wtal.datasets.annotations import AnnotationSet, read_activitynet
from wtal.report.importers import csv, elan, label_studio, via

IMPORTERS: dict[str, Callable[[Path], AnnotationSet]] = {
    # `wtal import --from NAME`: function
    "activitynet": read_activitynet,
    "csv": csv.read,
    "via": via.read,
    "label-studio": label_studio.read,
    "elan": elan.read,
}
